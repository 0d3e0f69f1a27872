# SPDX-License-Identifier: Apache-2.0
"""Every accepted encoding gives the pixels that were encoded; everything else is refused with a sentence."""

from __future__ import annotations

import contextlib
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gr00t_ros import images
from gr00t_ros.errors import MessageError
from gr00t_ros.images import ENCODINGS, check_image, decode_image
from support_messages import compressed_image, raw_image, rgb_image


def picture(height: int = 6, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth_picture(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 3, y * 4, 255 - x - y], axis=-1).astype(np.uint8)


def encode(pixels: np.ndarray, encoding: str, big: bool = False) -> np.ndarray:
    """Rows of bytes, uint8 [H, bytes], as a driver would send them: written without the code under test."""
    height = len(pixels)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    alpha = np.full_like(red, 7)
    eight = {
        "rgb8": [red, green, blue],
        "bgr8": [blue, green, red],
        "rgba8": [red, green, blue, alpha],
        "bgra8": [blue, green, red, alpha],
        "mono8": [red],
    }
    if encoding in eight:
        return np.stack(eight[encoding], axis=-1).reshape(height, -1)
    channels = np.stack(eight[encoding.replace("16", "8")], axis=-1).reshape(height, -1)
    return (channels.astype(np.uint16) * 257).astype(">u2" if big else "<u2").view(np.uint8)


PLAIN = ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"]
WIDE = ["rgb16", "bgr16", "rgba16", "bgra16", "mono16"]


@settings(max_examples=150, deadline=None)
@given(
    encoding=st.sampled_from(PLAIN + WIDE),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    padding=st.integers(0, 13),
    big=st.booleans(),
    surplus=st.integers(0, 5),
)
def test_plain_encodings_give_the_encoded_pixels(
    encoding: str, size: tuple[int, int], padding: int, big: bool, surplus: int
) -> None:
    """Whatever the row padding, the byte order of 16-bit values and bytes behind the last row."""
    pixels = picture(*size)
    if encoding.startswith("mono"):
        pixels = np.repeat(pixels[..., :1], 3, axis=-1)
    rows = encode(pixels, encoding, big)
    msg = raw_image(rows, encoding, width=size[1], step=rows.shape[1] + padding, is_bigendian=int(big))
    msg.data += bytes(surplus)
    decoded = decode_image(msg)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


def test_byte_order_is_read_from_the_message() -> None:
    rows = encode(picture(), "mono16", big=True)
    right = decode_image(raw_image(rows, "mono16", width=8, is_bigendian=1))
    wrong = decode_image(raw_image(rows + 1, "mono16", width=8, is_bigendian=0))
    assert not np.array_equal(right, wrong)


def test_sixteen_bit_values_are_rounded_over_their_full_range() -> None:
    values = np.arange(0, 65536, 13, dtype=np.uint16)[None]
    decoded = decode_image(raw_image(values.view(np.uint8), "mono16", width=values.shape[1]))
    np.testing.assert_array_equal(decoded[0, :, 0], np.round(values[0] / 257.0))


def test_rgb8_without_padding_is_not_copied() -> None:
    msg = rgb_image(picture())
    msg.data = bytearray(msg.data)
    decoded = decode_image(msg)
    msg.data[0] ^= 0xFF
    assert decoded[0, 0, 0] == msg.data[0]


def test_array_and_numpy_data_decode_alike() -> None:
    import array

    pixels = picture()
    msg = rgb_image(pixels)
    for data in (array.array("B", msg.data), np.frombuffer(msg.data, np.uint8), memoryview(msg.data)):
        np.testing.assert_array_equal(decode_image(SimpleNamespace(**{**msg.__dict__, "data": data})), pixels)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_the_right_colours(pattern: str) -> None:
    """A mosaic of one colour, built cell by cell from the pattern's own letters, is that colour
    everywhere."""
    colour = {"r": 200, "g": 100, "b": 50}
    cell = np.array([colour[letter] for letter in pattern], np.uint8).reshape(2, 2)
    decoded = decode_image(raw_image(np.tile(cell, (5, 6)), f"bayer_{pattern}8", width=12, step=16))
    assert decoded.shape == (10, 12, 3)
    np.testing.assert_array_equal(decoded, np.broadcast_to([200, 100, 50], (10, 12, 3)))


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")],
)
def test_yuv422_gives_the_colours_of_bt601(encoding: str, order: str) -> None:
    """Against the BT.601 formulas for video range; two pixels share U and V."""
    generator = np.random.default_rng(1)
    luma = generator.integers(60, 190, (4, 6)).astype(np.float64)
    u, v = generator.integers(100, 156, (2, 4, 3)).astype(np.float64)
    rows = np.zeros((4, 12), np.uint8)
    places = [i for i, letter in enumerate(order) if letter == "y"]
    for i, place in enumerate(places):
        rows[:, place::4] = luma[:, i::2]
    rows[:, order.index("u") :: 4], rows[:, order.index("v") :: 4] = u, v
    decoded = decode_image(raw_image(rows, encoding, width=6, step=20)).astype(np.float64)
    y, wide_u, wide_v = 1.164 * (luma - 16), np.repeat(u, 2, axis=1) - 128, np.repeat(v, 2, axis=1) - 128
    expected = np.stack(
        [y + 1.596 * wide_v, y - 0.813 * wide_v - 0.391 * wide_u, y + 2.018 * wide_u], axis=-1
    )
    assert np.abs(decoded - expected.clip(0, 255)).max() <= 1.5


def test_png_is_exact_and_jpeg_close() -> None:
    pixels = smooth_picture()
    np.testing.assert_array_equal(decode_image(compressed_image(pixels, "png")), pixels)
    jpeg = decode_image(compressed_image(pixels, "jpg"))
    assert jpeg.shape == pixels.shape
    assert np.abs(jpeg.astype(int) - pixels).mean() < 4.0, (
        "channels in the right order, up to what JPEG loses"
    )


def test_what_the_format_field_says_does_not_matter() -> None:
    """Drivers fill it in many ways; the data's own first bytes decide."""
    msg = compressed_image(smooth_picture(), "png")
    for text in ("png", "PNG", "bgr8; png compressed bgr8", "", "jpeg"):
        msg.format = text
        np.testing.assert_array_equal(decode_image(msg), smooth_picture())


def test_padding_behind_a_jpeg_is_accepted() -> None:
    msg = compressed_image(smooth_picture(), "jpg")
    whole = decode_image(msg)
    msg.data += bytes(1000)
    np.testing.assert_array_equal(decode_image(msg), whole)


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.99])
def test_a_truncated_compressed_image_is_refused_before_decoding(kind: str, share: float) -> None:
    msg = compressed_image(picture(240, 320), kind)
    msg.data = msg.data[: int(len(msg.data) * share)]
    with pytest.raises(MessageError, match=r"front: found .*expected"):
        check_image(msg, "front")


@settings(max_examples=60, deadline=None)
@given(at=st.floats(0.05, 0.95), value=st.integers(1, 255), kind=st.sampled_from(["png", "jpg"]))
def test_damage_inside_a_compressed_image_never_raises_anything_else(
    at: float, value: int, kind: str
) -> None:
    msg = compressed_image(smooth_picture(), kind)
    data = bytearray(msg.data)
    data[int(len(data) * at)] ^= value
    msg.data = bytes(data)
    with contextlib.suppress(MessageError):
        assert decode_image(msg).ndim == 3


def broken(**fields: Any) -> SimpleNamespace:
    msg = rgb_image(picture())
    msg.__dict__.update(fields)
    return msg


@pytest.mark.parametrize(
    ("msg", "expected"),
    [
        (broken(data=bytes(100)), "found 100 bytes, expected 144 (6 rows of step 24) as the header says"),
        (broken(data=b""), "found 0 bytes"),
        (broken(height=0), "found an image of 8x0 pixels"),
        (broken(width=0), "found an image of 0x6 pixels"),
        (broken(step=0), "rows of step 0"),
        (broken(width=9), "found step 24, expected at least 27 bytes for 9 pixels of rgb8"),
        (broken(encoding="bgra8"), "found step 24, expected at least 32 bytes for 8 pixels of bgra8"),
        (broken(encoding="rgb16"), "found step 24, expected at least 48 bytes"),
        (broken(encoding="yuv422", width=7), "found width 7, expected an even one for yuv422"),
        (broken(encoding="bayer_rggb8", width=1), "expected at least 2x2"),
        (broken(encoding="32FC1"), "found encoding '32FC1', expected one of rgb8, bgr8"),
        (broken(encoding=""), "found encoding ''"),
        (SimpleNamespace(format="jpeg", data=b""), "without data"),
        (
            SimpleNamespace(format="tiff", data=b"II*\0" + bytes(40)),
            "found format 'tiff' starting with 49 49 2a",
        ),
        (SimpleNamespace(format="32FC1; compressedDepth png", data=bytes(9)), "found a depth image"),
    ],
)
def test_wrong_images_are_refused(msg: Any, expected: str) -> None:
    for refuse in (check_image, decode_image):
        with pytest.raises(MessageError) as error:
            refuse(msg, "video.front")
        assert str(error.value).startswith("video.front: ")
        assert expected in str(error.value)


def test_all_encodings_are_tested_here() -> None:
    bayer = [f"bayer_{pattern}8" for pattern in ("rggb", "bggr", "gbrg", "grbg")]
    assert set(ENCODINGS) == {*PLAIN, *WIDE, *bayer, "yuv422", "uyvy", "yuv422_yuy2", "yuyv"}


class FakeBridge:
    """Stands for ROS's compiled cv_bridge, which PyPI does not have."""

    def imgmsg_to_cv2(self, msg: Any, desired_encoding: str) -> np.ndarray:
        if msg.encoding == "nv21":
            return np.full((msg.height, msg.width, 3), 9, np.uint8)
        if msg.encoding == "32FC1":
            return np.zeros((msg.height, msg.width), np.float32)
        raise RuntimeError("unknown encoding")


def test_further_encodings_go_through_the_real_cv_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    module, boost = ModuleType("cv_bridge"), ModuleType("cv_bridge.boost")
    module.CvBridge = FakeBridge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cv_bridge", module)
    monkeypatch.setitem(sys.modules, "cv_bridge.boost", boost)
    with pytest.raises(MessageError, match="cv_bridge, which would"):
        decode_image(broken(encoding="nv21"))  # without its compiled half it is not the real one
    monkeypatch.setitem(
        sys.modules, "cv_bridge.boost.cv_bridge_boost", ModuleType("cv_bridge.boost.cv_bridge_boost")
    )
    assert (decode_image(broken(encoding="nv21")) == 9).all()
    with pytest.raises(MessageError, match="expected an RGB picture"):
        decode_image(broken(encoding="32FC1"))
    with pytest.raises(MessageError, match="cv_bridge cannot turn 'odd' into rgb8"):
        decode_image(broken(encoding="odd"))


def test_the_table_names_no_encoding_twice() -> None:
    assert not set(images._EIGHT_BIT) & set(images._SIXTEEN_BIT)
