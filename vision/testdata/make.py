# SPDX-License-Identifier: Apache-2.0
"""Writes the pictures in pictures/ and what Pillow makes of them in upright/ (RGB PNG, same stem), and the resampled ones in resampled/.

Made with Pillow 9.4.0, libjpeg-turbo 2.1.5 and libwebp 1.2.4; needs cjpeg. Run it in this folder. pictures/icon*.webp are not made
here: they are from Noto Emoji (Google, Apache-2.0), 128×128.
"""
import glob, io, os, struct, subprocess, zlib
import numpy as np
from PIL import Image, ImageOps

rng = np.random.default_rng(1)


def scene(w, h):
    """A smooth picture with edges, saturated colours and a little noise, (h,w,3) uint8."""
    y, x = np.mgrid[0:h, 0:w] / max(w, h)
    rgb = np.stack([128 + 120 * np.sin(9 * x + 3 * y), 255 * x, 128 + 127 * np.cos(11 * y - 4 * x)], 2)
    rgb[(x - 0.6) ** 2 + (y - 0.3) ** 2 < 0.04] = (255, 0, 20)
    rgb[h // 2 :, : w // 3] = (0, 40, 255)
    return np.clip(rgb + rng.normal(0, 4, rgb.shape), 0, 255).astype(np.uint8)


def write(name, data):
    with open("pictures/" + name, "wb") as f:
        f.write(data)


def saved(im, fmt, **kw):
    f = io.BytesIO()
    im.save(f, fmt, **kw)
    return f.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples, depth, colour, interlace=False, extra=b""):
    """A PNG of samples (h,w,channels) with any colour type and depth; extra chunks go before the data."""
    h, w, _ = samples.shape
    passes = [(0, 0, 1, 1)]
    if interlace:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x0, y0, dx, dy in passes:
        part = samples[y0::dy, x0::dx]
        for row in part if part.shape[1] else []:
            flat = row.reshape(-1).astype(int)
            if depth == 16:
                line = flat.astype(">u2").tobytes()
            else:
                bits = "".join(format(v, "0%db" % depth) for v in flat)
                bits += "0" * (-len(bits) % 8)
                line = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
            raw += b"\0" + line
    head = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlace))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def pngs():
    rgb = scene(23, 17).astype(int)
    alpha = np.arange(23 * 17).reshape(17, 23, 1) * 7 % 256
    grey = rgb[:, :, 1:2]
    palette = chunk(b"PLTE", bytes(rng.integers(0, 256, 48).tolist()))
    write("grey1.png", png(grey // 128, 1, 0))
    write("grey2_transparent.png", png(grey // 64, 2, 0, extra=chunk(b"tRNS", b"\0\2")))
    write("grey8_interlaced.png", png(grey, 8, 0, interlace=True))
    write("grey16.png", png(grey * 3, 16, 0))
    write("grey16_transparent.png", png(grey * 3, 16, 0, extra=chunk(b"tRNS", struct.pack(">H", grey[3, 3, 0] * 3))))
    write("grey_alpha8.png", png(np.concatenate([grey, alpha], 2), 8, 4))
    write("grey_alpha16.png", png(np.concatenate([grey, alpha], 2) * 251, 16, 4))
    write("rgb8_transparent.png", png(rgb, 8, 2, extra=chunk(b"tRNS", struct.pack(">HHH", *rgb[12, 2]))))
    write("rgb16.png", png(rgb * 257 - rgb // 2, 16, 2))
    write("rgba8_interlaced.png", png(np.concatenate([rgb, alpha], 2), 8, 6, interlace=True))
    write("rgba16.png", png(np.concatenate([rgb, alpha], 2) * 251, 16, 6))
    write("palette4_transparent.png", png(grey // 16, 4, 3, extra=palette + chunk(b"tRNS", b"\0\x80\xff\0")))
    for o in range(1, 9):
        tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 274, 3, 1, o, 0, 0)
        write("orientation%d.png" % o, png(np.arange(45).reshape(3, 5, 3) * 5, 8, 2, extra=chunk(b"eXIf", tiff)))


def exif(o):
    e = Image.Exif()
    e[274] = o
    return e.tobytes()


def cjpeg(im, *args):
    return subprocess.run(["cjpeg", *args], input=saved(im, "PPM"), stdout=subprocess.PIPE, check=True).stdout


def jpegs():
    im = Image.fromarray(scene(77, 59))
    for name, sampling in [("444", "1x1"), ("422", "2x1"), ("420", "2x2"), ("440", "1x2"), ("411", "4x1"), ("410", "4x2")]:
        write("sampling%s.jpg" % name, cjpeg(im, "-quality", "85", "-sample", sampling))
    write("progressive.jpg", cjpeg(im, "-quality", "80", "-progressive"))
    write("restart.jpg", cjpeg(im, "-quality", "80", "-restart", "2B"))
    write("rgb.jpg", cjpeg(im, "-quality", "90", "-rgb"))
    write("grey.jpg", cjpeg(im, "-quality", "85", "-grayscale"))
    write("narrow.jpg", cjpeg(im.crop((0, 0, 4, 30)), "-quality", "85"))
    write("orientation6.jpg", saved(im, "JPEG", exif=exif(6)))
    ink = im.convert("CMYK")
    ink.putdata([(c, m, y, (c + m) // 4) for c, m, y, _ in ink.getdata()])
    cmyk = saved(ink, "JPEG", quality=90)
    write("cmyk.jpg", cmyk)
    at = cmyk.index(b"Adobe") + 11
    write("ycck.jpg", cmyk[:at] + b"\2" + cmyk[at + 1 :])


def others():
    im = Image.fromarray(scene(45, 37))
    rgba = im.copy()
    rgba.putalpha(Image.fromarray((np.arange(45 * 37) * 3 % 256).reshape(37, 45).astype(np.uint8)))
    write("lossy.webp", saved(im, "WebP", quality=70))
    write("lossy_even.webp", saved(im.crop((0, 0, 44, 36)), "WebP", quality=90))
    write("lossy_narrow.webp", saved(im.crop((0, 0, 1, 9)), "WebP", quality=90))
    write("lossy_alpha.webp", saved(rgba, "WebP", quality=70, exact=True))
    write("lossless_alpha.webp", saved(rgba, "WebP", lossless=True, exact=True))
    write("orientation8.webp", saved(im, "WebP", lossless=True, exif=exif(8)))
    palette = im.quantize(13)
    write("palette.gif", saved(palette, "GIF"))
    write("animated.gif", saved(palette, "GIF", save_all=True, append_images=[palette.transpose(0)], transparency=3))
    for name, kw in [("offset", {}), ("offset_transparent", {"transparency": 5})]:
        gif = bytearray(saved(palette, "GIF", **kw))
        gif[6:10] = struct.pack("<HH", 60, 50)
        at = gif.index(b",\0\0\0\0" + struct.pack("<HH", 45, 37))
        gif[at + 1 : at + 5] = struct.pack("<HH", 9, 4)
        write(name + ".gif", bytes(gif))
    write("rgb.bmp", saved(im, "BMP"))
    write("rgba.bmp", saved(rgba, "BMP"))
    write("palette.bmp", saved(palette, "BMP"))
    bits = bytearray(saved(im.convert("1"), "BMP"))
    bits[22:26] = struct.pack("<i", -37)
    write("bits_top_down.bmp", bytes(bits))


def resampled():
    src = Image.fromarray(scene(61, 40))
    src.save("resampled/source.png")
    for name, f in [("nearest", 0), ("lanczos", 1), ("bilinear", 2), ("bicubic", 3)]:
        for w, h in [(23, 17), (67, 43), (61, 7), (5, 90)]:
            src.resize((w, h), f).save("resampled/%s_%dx%d.png" % (name, w, h), optimize=True)


for folder in "pictures", "upright", "resampled":
    os.makedirs(folder, exist_ok=True)
pngs()
jpegs()
others()
resampled()
for path in glob.glob("pictures/*"):
    im = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    im.info.clear()
    im.save("upright/%s.png" % os.path.basename(path), optimize=True)
