# What `edgeprune deploy` does on a device, in its shell: dash, bash, busybox, or Android's mksh with toybox.
#
#   sh -c THIS sh OP DIR WHO ...    WHO is "HOST PID TOKEN" of the program that asks; TOKEN is 16 hexadecimal digits
#
#   open                     DIR is ours and locked, what cut deployments left is gone; says where it is
#   break HELD               takes away the lock whose text is HELD
#   put NAME FROM FILE SUM   the file FROM as FILE of a release that is being made, if its SHA-256 there is SUM
#   commit NAME              that release is whole: on the disk, under its name, and the current one
#   point NAME               NAME is the current one
#   prune NAME...            these are gone
#   close                    nothing unfinished of ours is there, and DIR is unlocked
#   list                     says what is there; changes nothing
#   sound NAME               says the SHA-256 of its SHA256SUMS if all its files are as that says; changes nothing
#
# Each may be cut anywhere and asked again. A folder or link gets its name by one rename, when it is whole:
# `mv X/name .` is that everywhere, also over a link to a folder; `mv -T` is not everywhere.
set -u
LC_ALL=C
export LC_ALL
unset CDPATH
op=$1 dir=$2 who=$3
shift 3
token=${who##* }
own=.edgeprune/$token
case $dir in
/*) ;;
'~') dir=$HOME ;;
'~/'*) dir=$HOME/${dir#??} ;;
*) dir=$HOME/$dir ;;
esac

# Which start of the device this is, and seconds since: clocks jump.
now() {
    boot=- seconds=0
    { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
    { read -r seconds _ </proc/uptime; } 2>/dev/null
    printf '%s' "$boot ${seconds%%.*}"
}

digest() {
    line=$(sha256sum <"$1") && printf '%s' "${line%% *}"
}

flush() {
    sync -f . 2>/dev/null || sync
}

# The link NAME with a text, in DIR or a folder of it, in place of one that is there.
link() {
    rm -rf "$own/$$" && mkdir -p "$own/$$" && ln -s "$2" "$own/$$/$1" && mv -f "$own/$$/$1" "$3" && rm -rf "$own/$$"
}

# Only who holds the lock goes on; and it is heard of.
enter() {
    cd -P "$dir" || exit 1
    case $(readlink .edgeprune/lock) in
    "$who "*) link lock "$who $(now)" .edgeprune || exit 1 ;;
    *) exit 85 ;;
    esac
}

point() {
    [ -d "releases/$1" ] && link current "releases/$1" . && [ "$(readlink current)" = "releases/$1" ] || exit 1
    flush
}

case $op in
open)
    made=
    if [ ! -d "$dir" ]; then
        [ -d "$(dirname "$dir")" ] || exit 81
        mkdir "$dir" || exit 1
        made=1
    fi
    cd -P "$dir" || exit 1
    here=$(pwd -P)
    case $here in
    / | "$(cd -P "${HOME:-/}" 2>/dev/null && pwd -P)") exit 80 ;;
    esac
    if [ ! -d .edgeprune ]; then
        [ -z "$(ls -A)" ] || exit 82
        mkdir -p .edgeprune || exit 1
    fi
    [ ! -e current ] || [ -L current ] || exit 86
    if ! said=$(ln -s "$who $(now)" .edgeprune/lock 2>&1); then
        held=$(readlink .edgeprune/lock)
        case $held in
        "$who "*) ;;
        ?*)
            printf '%s\n' "$held" "$(now)"
            exit 84
            ;;
        *)
            # Its owner gave it back just now, or links cannot be made here, or nothing can.
            code=1
            if mkdir -p "$own" && printf '' >"$own/try"; then
                code=83
                ln -s try "$own/link" 2>/dev/null && code=84
            fi
            rm -rf "$own"
            if [ $code = 83 ]; then
                rmdir .edgeprune
                [ -z "$made" ] || { cd .. && rmdir "$here"; }
            fi
            [ $code = 84 ] && printf '\n%s\n' "$(now)" || printf '%s\n' "$said"
            exit $code
            ;;
        esac
    fi
    for each in .edgeprune/*; do
        case ${each#.edgeprune/} in
        "$token" | *[!0-9a-f]*) ;;
        *) rm -rf "$each" ;;
        esac
    done
    printf '%s\n' "$here"
    ;;
break)
    cd -P "$dir" && mkdir -p "$own" || exit 1
    # Renamed first, which only one can; put back where it was another one by then.
    if [ "$(readlink .edgeprune/lock)" = "$1" ] && mv .edgeprune/lock "$own/lock"; then
        held=$(readlink "$own/lock")
        [ "$held" = "$1" ] || ln -s "$held" .edgeprune/lock
    fi
    rm -rf "$own"
    ;;
put)
    enter
    # Under a name of its own: a step that was cut and asked again may still run, and must not touch a file that is whole.
    mkdir -p "$own/$1" && cat <"$2" >"$own/$$.part" || exit 1
    [ "$(digest "$own/$$.part")" = "$4" ] || exit 87
    mv -f "$own/$$.part" "$own/$1/$3" || exit 1
    ;;
commit)
    enter
    if [ ! -d "releases/$1" ]; then
        [ -d "$own/$1" ] && mkdir -p releases && flush && mv "$own/$1" releases || exit 1
        flush
    fi
    point "$1"
    ;;
point)
    enter
    point "$1"
    ;;
prune)
    enter
    for each; do
        [ -d "releases/$each" ] && [ "$(readlink current)" != "releases/$each" ] || continue
        rm -rf "$own/gone" && mkdir -p "$own" && mv "releases/$each" "$own/gone" && rm -rf "$own/gone" || exit 1
    done
    ;;
close)
    cd -P "$dir" 2>/dev/null || exit 0
    rm -rf "$own"
    case $(readlink .edgeprune/lock) in
    "$who "*) rm -f .edgeprune/lock ;;
    esac
    ;;
list)
    cd -P "$dir" 2>/dev/null && [ -d .edgeprune ] || exit 88
    printf 'here %s\ncurrent %s\n' "$(pwd -P)" "$(readlink current)"
    for each in releases/*/; do
        each=${each%/}
        [ ! -d "$each" ] || printf 'release %s %s\n' "${each#releases/}" "$(cat "$each/deploy.json" 2>/dev/null)"
    done
    ;;
sound)
    cd -P "$dir/releases/$1" || exit 1
    while read -r sum name; do
        [ "$(digest "$name")" = "$sum" ] || exit 87
    done <SHA256SUMS || exit 87
    digest SHA256SUMS
    ;;
esac
