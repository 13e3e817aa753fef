"""What needs no phone and no adb: addresses, lists, states, quoting."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fakes.fake_adbd import BATTERY, THERMAL
from fakes.tiny_tflite import write_tflite
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.core.errors import DeviceError
from edgeprune.core.session import DeviceSpec
from edgeprune.devices.adb.client import Listed, choose, parse_address, parse_devices
from edgeprune.devices.adb.session import AdbSession, _checked_folder, _plain_suffix
from edgeprune.devices.adb.state import parse_state
from edgeprune.devices.adb.tensors import Tensor, tensors
from edgeprune.devices.channel import ChannelError

LIST = """* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
0123456789ABCDEF       device usb:1-1 product:sargo model:Pixel_3a device:sargo transport_id:1
192.168.0.7:5555       offline transport_id:2
R58M123ABCD            unauthorized usb:1-2 transport_id:3
????????????           no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-3
(no serial number)     device usb:1-4 transport_id:4
emulator-5554          device product:sdk_gphone transport_id:5

"""


def test_the_list_of_phones() -> None:
    assert parse_devices(LIST) == [
        Listed("0123456789ABCDEF", "device"),
        Listed("192.168.0.7:5555", "offline"),
        Listed("R58M123ABCD", "unauthorized"),
        Listed("????????????", "no permissions"),
        Listed("(no serial number)", "device"),
        Listed("emulator-5554", "device"),
    ]
    assert parse_devices("List of devices attached\n\n") == []
    assert parse_devices("cannot connect to daemon") == []


@pytest.mark.parametrize(
    ("state", "said", "typed", "retryable"),
    [
        ("unauthorized", "does not trust", "Allow USB debugging", False),
        ("offline", "does not answer", "adb reconnect offline", True),
        ("no permissions", "may not open", "plugdev", False),
        ("authorizing", "checking", "wait", True),
        ("recovery", "'recovery'", "adb reboot", False),
    ],
)
def test_a_phone_that_is_not_ready(state: str, said: str, typed: str, retryable: bool) -> None:
    with pytest.raises(ChannelError) as caught:
        choose([Listed("A", state)], "")
    assert (caught.value.kind, caught.value.retryable) == ("lost", retryable)
    assert said in caught.value.message
    assert typed in caught.value.hint


def test_which_phone_is_meant() -> None:
    two = [Listed("A", "device"), Listed("B", "device")]
    assert choose(two, "B") == "B"
    assert choose(two[:1], "") == "A"
    with pytest.raises(DeviceError, match=r"several phones are connected: A, B.*adb://A"):
        choose(two, "")
    with pytest.raises(ChannelError, match=r"phone C is not connected \(connected: A, B\)"):
        choose(two, "C")
    with pytest.raises(ChannelError, match="no phone is connected"):
        choose([], "")


@pytest.mark.parametrize("serial", ["", "R58M123ABCD", "192.168.0.7:5555", "[::1]:5600", "adb-1._adb-tls-connect._tcp"])
def test_addresses(serial: str) -> None:
    assert parse_address(f"adb://{serial}") == serial


@given(st.text(st.sampled_from("ab1-;$`'\"\\ \n\0|&<>(){}*?~#!./:\u00e9"), max_size=20))
def test_a_serial_is_neither_an_option_nor_of_interest_to_a_shell(serial: str) -> None:
    try:
        found = parse_address(f"adb://{serial}")
    except DeviceError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
        return
    assert found == serial
    assert not serial.startswith("-")
    assert not set(serial) & set(";$`'\"\\ \n\0|&<>{}*?~#!/")


@pytest.mark.parametrize(
    "address", ["", "adb", "adb:/x", "ssh://x", "adb://-x", "adb://a b", "adb://$(id)", "adb://a;b"]
)
def test_no_addresses(address: str) -> None:
    with pytest.raises(DeviceError, match="no address of a phone"):
        AdbSession(DeviceSpec("phone", "adb", address))


def test_without_adb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceError, match="apt-get install adb"):
        AdbSession(DeviceSpec("phone", "adb", "adb://"))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30))
def test_a_folder_is_one_word_of_the_shell(name: str) -> None:
    try:
        folder = _checked_folder("/" + name)
    except DeviceError:
        return
    said = subprocess.run(["sh", "-c", f"printf %s {shlex.quote(folder)}"], capture_output=True, check=True).stdout
    assert said.decode("utf-8", "surrogateescape") == folder


@given(st.text(max_size=20))
def test_a_suffix_is_harmless(text: str) -> None:
    try:
        suffix = _plain_suffix(Path("model." + text))
    except ValueError:
        return
    assert suffix == "" or suffix[1:].isascii()
    assert set(suffix) <= set("._abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


@pytest.mark.parametrize("folder", ["relative", "/a/../b", "/a\nb", "~/x"])
def test_no_folders(folder: str) -> None:
    with pytest.raises(DeviceError, match="no folder on a phone"):
        _checked_folder(folder)


STATE = """wall=1795251803.123456789
uptime=1876.02 3000.00
load=0.81 0.5 0.4 1/999 1234
boot=3906ad8b-f916-484c-a86c-7b609a9cc691
cpu=1800000 600000 schedutil
cpu=2800000 2000000 walt
"""


def test_state() -> None:
    state = parse_state(STATE + BATTERY + THERMAL)
    # Not the cached 84 degrees, nor the 99 of a sensor that counts percent.
    assert (state["temperature_c"], state["battery_c"], state["thermal_status"]) == (57.9, 31.2, 1)
    assert (state["frequency_hz"], state["frequency_max_hz"], state["governor"]) == (
        2_000_000_000,
        2_800_000_000,
        "walt",
    )
    assert (state["load1"], state["boot_id"]) == (0.81, "3906ad8b-f916-484c-a86c-7b609a9cc691")
    assert (state["wall_s"], state["mono_s"]) == (pytest.approx(1795251803.123), 1876.02)
    assert parse_state(BATTERY)["temperature_c"] == 31.2


def test_a_silent_phone_has_no_state() -> None:
    assert set(parse_state("wall=1795251803.%N\nuptime=\ncpu= \nPermission denied").values()) == {None}


@given(st.lists(st.sampled_from((STATE + BATTERY + THERMAL).splitlines()) | st.text(max_size=80)))
def test_any_state_is_short_figures_and_words(lines: list[str]) -> None:
    for value in parse_state("\n".join(lines)).values():
        assert value is None or isinstance(value, (int, float)) or len(value) <= 40


def test_tensors_of_a_model(tmp_path: Path) -> None:
    ends = tensors(write_tflite(tmp_path / "m.tflite", (6, 5, 3)).read_bytes())
    taken, given_back = ends.inputs, ends.outputs
    assert taken == [Tensor("x", (1, 6), "float32")]
    assert given_back == [Tensor("y1", (1, 3), "float32")]
    assert (taken[0].nbytes, taken[0].sized(None)) == (24, (1, 6))


@given(st.binary(max_size=300))
def test_no_model_has_no_tensors(data: bytes) -> None:
    try:
        tensors(data)
    except ChannelError as error:
        assert error.kind == "refused"  # noqa: PT017 - either outcome is right


def test_integers_are_fed_and_read_in_real_values() -> None:
    tensor = Tensor("x", (1, 4), "int8", 0.5, 3)
    shape, data = tensor.encode(np.array([[0, 1, -1.2, 1000]], np.float32))
    assert shape == (1, 4)
    assert np.frombuffer(data, np.int8).tolist() == [3, 5, 1, 127]
    assert tensor.decode(data).tolist() == [[0.0, 1.0, -1.0, 62.0]]
    assert tensor.encode(np.array([[3, 5, 1, 127]], np.int8)) == (shape, data)


def test_integers_without_scale_are_neither_cut_nor_wrapped() -> None:
    tensor = Tensor("x", (1, 2), "uint8")
    assert tensor.encode(np.array([[0, 255]], np.float32))[1] == b"\0\xff"
    for values in ([[0.5, 1]], [[-1, 1]], [[0, 256]]):
        with pytest.raises(ChannelError, match="do not fit an input of uint8"):
            tensor.encode(np.array(values, np.float32))
    assert tensor.decode(b"\0\xff").tolist() == [[0, 255]]


def test_inputs_of_another_shape_are_refused() -> None:
    tensor = Tensor("x", (1, 3, 2, 2), "float32", open=(0, 2))
    tensor.encode(np.zeros((1, 3, 2, 2), np.float32))
    tensor.encode(np.zeros((1, 12), np.float32))
    assert tensor.encode(np.zeros((5, 3, 4, 2), np.float32))[0] == (5, 3, 4, 2)
    with pytest.raises(ChannelError, match="does not fit"):
        tensor.encode(np.zeros((1, 2, 2, 3), np.float32))
    assert tensor.sized((2, 3, 9, 2)) == (2, 3, 9, 2)
    with pytest.raises(ChannelError, match="open axis 2"):
        tensor.sized(None)
    for wrong in ((1, 4, 2, 2), (1, 3, 2), (1, 3, 0, 2)):
        with pytest.raises(ChannelError, match="not"):
            tensor.sized(wrong)
