"""Pictures of every mode, size and state, through open_images."""

import os
from io import BytesIO

import helpers
import numpy as np
import pytest
from helpers_data import SHAPE, png
from PIL import Image, PngImagePlugin

from jaxdefend import InputError
from jaxdefend.datasets.files import open_images

FACE = helpers.random_pixels(1)[0]
SMOOTH = np.asarray(Image.fromarray(FACE[:6, :5]).resize((47, 55), Image.Resampling.BICUBIC))


def read(path, **options):
    return open_images([path], labelled=False, shape=SHAPE, **options)[:][0]


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    "name, options",
    [
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.webp", {"lossless": True}),
        ("a.tif", {}),
        ("a.tiff", {"compression": "tiff_lzw"}),
    ],
)
def test_lossless_pictures_come_back_bit_for_bit_in_rgb(tmp_path, name, options):
    np.testing.assert_array_equal(read(saved(tmp_path / name, Image.fromarray(FACE), **options)), FACE)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp", "a.jfif", "a.gif"])
def test_lossy_pictures_are_what_pillow_reads(tmp_path, name):
    path = saved(tmp_path / name, Image.fromarray(SMOOTH))
    np.testing.assert_array_equal(read(path), np.asarray(Image.open(path).convert("RGB")))
    assert np.abs(read(path).astype(int) - SMOOTH).mean() < 10


def test_red_is_the_first_channel(tmp_path):
    assert read(saved(tmp_path / "a.png", Image.new("RGB", (47, 55), "red")))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_other_modes_become_rgb_as_pillow_does(tmp_path, mode):
    image = Image.fromarray(SMOOTH).convert(mode)
    path = saved(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), image)
    with Image.open(path) as again:
        assert again.mode == mode
        np.testing.assert_array_equal(read(path), np.asarray(again.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(tmp_path, mode):
    alpha = np.tile(np.linspace(0, 255, 47, dtype=np.uint8), (55, 1))
    image = Image.fromarray(FACE).convert(mode)
    image.putalpha(Image.fromarray(alpha))
    colours = np.asarray(image.convert("RGBA"))[..., :3].astype(float)
    share = alpha[..., None] / 255
    expected = colours * share + 255 * (1 - share)
    assert np.abs(read(saved(tmp_path / "a.png", image)) - expected).max() <= 1


def test_transparent_colours_are_white(tmp_path):
    grey = np.tile(np.arange(47, dtype=np.uint8), (55, 1))
    palette = Image.fromarray(grey).convert("P")
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    rgb = Image.fromarray(np.stack([grey] * 3, axis=-1))
    one = Image.fromarray(grey > 7)
    for name, image, transparent in [
        ("p.png", palette, 7),
        ("l.png", Image.fromarray(grey), 7),
        ("rgb.png", rgb, (7, 7, 7)),
        ("deep.png", deep, 7 * 257),
        ("one.png", one, 0),
    ]:
        pixels = read(saved(tmp_path / name, image, transparency=transparent))
        assert (pixels[:, 7] == 255).all(), name
        if name != "one.png":
            assert (pixels[:, 8] == 8).all(), name


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    grey = np.linspace(0, 65535, 55 * 47).astype(np.uint16).reshape(55, 47)
    pixels = read(saved(tmp_path / "a.png", Image.fromarray(grey)))
    np.testing.assert_array_equal(pixels, np.repeat(np.rint(grey / 257)[..., None], 3, axis=-1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_counted(tmp_path, orientation):
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # the inverse of what undoes it
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(FACE)
    if orientation in turns:
        stored = stored.transpose(turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, options in [("a.png", {}), ("a.webp", {"lossless": True})]:
        path = saved(tmp_path / name, stored, exif=exif, **options)
        np.testing.assert_array_equal(read(path), FACE)
        assert open_images([path], labelled=False).notes == ()


def test_another_size_is_resized_as_pillow_does_with_a_note(tmp_path):
    large = Image.fromarray(helpers.random_pixels(1)[0]).resize((100, 90))
    path = saved(tmp_path / "large.png", large)
    np.testing.assert_array_equal(read(path), np.asarray(large.resize((47, 55), Image.Resampling.BILINEAR)))
    small = saved(tmp_path / "small.png", Image.fromarray(FACE))
    notes = open_images([path, small], labelled=False, shape=SHAPE).notes
    assert notes == ("image files: 1 of 2 images are not 55×47 and will be resized",)
    notes = open_images([tmp_path], labelled=False, shape=SHAPE).notes
    assert notes == (f"{tmp_path}: 1 of 2 images are not 55×47 and will be resized",)


def encoded(kind: str, **options) -> bytes:
    file = BytesIO()
    Image.fromarray(FACE).save(file, kind, **options)
    return file.getvalue()


def text_bomb() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("a", "a" * 5_000_000, zip=True)
    return encoded("PNG", pnginfo=text)


BAD_PICTURES = {
    "text": ("a.png", b"hello", "cannot identify"),
    "empty": ("a.png", b"", "empty"),
    "truncated jpeg": ("a.jpg", encoded("JPEG")[:-400], "truncated"),
    "truncated png": ("a.png", encoded("PNG")[:2000], "complete"),
    "truncated webp": ("a.webp", encoded("WEBP")[:500], "complete"),
    "truncated bmp": ("a.bmp", encoded("BMP")[:500], "complete"),
    "header only": ("a.png", encoded("PNG")[:20], "complete"),
    "bad checksum": ("a.png", encoded("PNG")[:40] + b"xxxx" + encoded("PNG")[44:], "complete"),
    "bomb": ("a.png", png(8001, 8000), "8000×8001"),
    "larger bomb": ("a.png", png(10_000, 10_000), "a.png"),
    "huge bomb": ("a.png", png(2**31 - 1, 2**31 - 1), "a.png"),
    "a line": ("a.png", png(1, 64_000_000), "64000000×1 pixels, expected at most 65,535"),
    "truncated tiff": ("a.tif", encoded("TIFF")[:2000], "complete"),
    "truncated gif": ("a.gif", encoded("GIF")[:200], "a.gif"),
    "text bomb": ("a.png", text_bomb(), "a.png"),
    "no pixels": ("a.png", png(0, 0), "a.png"),
    "another format": ("a.png", encoded("PPM"), "PPM picture"),
    "postscript": ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PNG, JPEG, BMP, WebP, TIFF or GIF"),
    "line break in its name": ("a\nb.png", b"hello", "a\\nb.png"),
}


@pytest.mark.parametrize("in_folder", [False, True])
@pytest.mark.parametrize("name, content, says", BAD_PICTURES.values(), ids=BAD_PICTURES.keys())
def test_bad_picture_is_an_input_error_with_its_name(tmp_path, in_folder, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        open_images([tmp_path if in_folder else path], labelled=False)[:]
    message = str(raised.value)
    assert name.replace("\n", "\\n") in message and "\n" not in message
    assert in_folder or says in message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF"])
def test_damaged_pictures_are_input_errors_or_read(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encoded(kind, **({} if kind in ("BMP", "GIF") else {"exif": exif}))
    path = tmp_path / f"a.{kind.lower()}"
    rng = np.random.default_rng(0)
    for place in rng.integers(0, 250, 120):
        damaged = bytearray(whole)
        damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert read(path).shape == (55, 47, 3)
        except InputError as error:
            assert path.name in str(error)


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode here")
def test_names_that_are_not_utf8_do_no_harm(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/test_3_\xff.png")
    Image.fromarray(FACE).save(path)
    for images in (open_images([tmp_path]), open_images([path])):
        np.testing.assert_array_equal(images[:][0], FACE)
        assert (
            images.labels is not None
            and images.labels.tolist() == [3]
            and images.names[0].endswith(r"test_3_\udcff.png")
        )


def test_the_first_picture_of_an_animation_is_taken(tmp_path):
    frames = [Image.fromarray(np.full((55, 47, 3), value, np.uint8)) for value in (10, 200)]
    for name in ("a.gif", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert (read(tmp_path / name) == 10).all()


def test_grey_values_without_a_range_are_refused(tmp_path):
    for values in (np.full((55, 47), 0.5, np.float32), np.full((55, 47), 70_000, np.int32)):
        Image.fromarray(values).save(tmp_path / "a.tif")
        with pytest.raises(InputError, match=r"a\.tif.*(floats|16 bits)"):
            read(tmp_path / "a.tif")


def test_sixteen_bit_tiff_is_scaled_too(tmp_path):
    grey = np.linspace(0, 65535, 55 * 47).astype(np.uint16).reshape(55, 47)
    pixels = read(saved(tmp_path / "a.tif", Image.fromarray(grey)))
    np.testing.assert_array_equal(pixels[..., 0], np.rint(grey / 257))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_grey_is_what_pillow_calls_l(tmp_path, mode):
    image = Image.fromarray(SMOOTH).convert(mode)
    path = saved(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), image)
    with Image.open(path) as again:
        expected = np.asarray(again.convert("RGB").convert("L"))
    pixels = open_images(path, labelled=False, shape=(55, 47, 1))[0]
    np.testing.assert_array_equal(pixels[..., 0], expected)
