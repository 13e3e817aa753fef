/* Counts the guest's instructions: a plugin for qemu-user's TCG (plugin API 1, qemu 4.2 to 9).
 * Argument shm=FILE: when a guest process calls getppid, its own count is written to the first 8 bytes of this file, which
 * the guest maps. The count itself is private memory, so a forked process counts on for itself alone.
 * The API is declared here since Debian packages no header for it. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define ADD_U64 0
#define GETPPID 173
#define FILE_BYTES 4096

struct qemu_plugin_tb;
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*)(uint64_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *slot, uint64_t add);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern void qemu_plugin_register_vcpu_syscall_cb(uint64_t id,
    void (*)(uint64_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));

EXPORT int qemu_plugin_version = 1;
static uint64_t count;
static volatile uint64_t *published;

/* Once for each block of instructions that is translated; what it registers runs each time the block does. */
static void translated(uint64_t id, struct qemu_plugin_tb *block)
{
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &count, qemu_plugin_tb_n_insns(block));
}

static void called(uint64_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
    uint64_t f, uint64_t g, uint64_t h)
{
    if (number == GETPPID)
        *published = count;
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    if (argc != 1 || strncmp(argv[0], "shm=", 4))
        return -1;
    int file = open(argv[0] + 4, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, FILE_BYTES))
        return -1;
    published = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (published == MAP_FAILED)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
