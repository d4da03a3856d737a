"Digits in many fonts, warped as a hand would: 28 by 28, white on black, centered by their mass as MNIST's are."
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from draw import bilinear, rng_for, rotation, smooth_noise, to_byte

# The bundled fonts whose 0 to 9 are digits (the others hold symbols).
FONTS = [f'DejaVu{family}{style}'
         for family, slanted in (('Sans', 'Oblique'), ('SansMono', 'Oblique'), ('Serif', 'Italic'))
         for style in ('', '-Bold', f'-{slanted}', f'-Bold{slanted}')]
FONTS += ['STIXGeneral', 'STIXGeneralBol', 'STIXGeneralItalic', 'STIXGeneralBolIta', 'cmb10', 'cmr10', 'cmss10',
          'cmti10', 'cmtt10']

SIDE, HEIGHT = 72, 46  # side of a glyph's distance map, and the height of the digit in it


@lru_cache(None)
def distance_map(
    font:str, digit:int,
)->tuple:  # signed distances to the outline, (SIDE, SIDE), in pixels, above 0 inside; half the width of the stroke
    "The digit as a field of distances: cutting it at another level makes the pen thicker or thinner."
    path = Path(matplotlib.get_data_path())/'fonts'/'ttf'/f'{font}.ttf'
    big = 2*SIDE  # drawn at twice the size, so that the outline is known to half a pixel
    im = Image.new('L', (big, big))
    truetype = ImageFont.truetype(str(path), 100, layout_engine=ImageFont.Layout.BASIC)
    x0, y0, x1, y1 = truetype.getbbox(str(digit))
    truetype = ImageFont.truetype(str(path), round(100*2*HEIGHT/(y1 - y0)), layout_engine=ImageFont.Layout.BASIC)
    ImageDraw.Draw(im).text((big/2, big/2), str(digit), font=truetype, fill=255, anchor='mm')
    box = im.getbbox()
    im = im.transform(im.size, Image.Transform.AFFINE,
                      (1, 0, (box[0] + box[2] - big)//2, 0, 1, (box[1] + box[3] - big)//2))
    inside = np.asarray(im) > 127
    p = np.pad(inside, 1)
    edge = inside & ~(p[2:, 1:-1] & p[:-2, 1:-1] & p[1:-1, 2:] & p[1:-1, :-2])
    ey, ex = np.nonzero(edge)
    grid = np.arange(0, big, 2)
    dy2, dx2 = (grid[:, None] - ey)**2, (grid[:, None] - ex)**2  # (SIDE, n_edge) each, integers: exact
    dist = np.sqrt(np.stack([(row + dx2).min(1) for row in dy2]))/2  # (SIDE, SIDE)
    dist = np.where(inside[::2, ::2], dist, -dist)
    return dist, np.quantile(dist[dist > 0], 0.9)


def digit_image(
    digit:int,
    rng:np.random.Generator,
)->np.ndarray:  # (28, 28) of bytes
    "One digit: a font, a pen, a slant, a shaky hand."
    dist, half = distance_map(FONTS[rng.integers(len(FONTS))], digit)
    # Where in the map each point of the picture looks: the inverse of what is done to the digit.
    lin = rotation(rng.triangular(-27, 0, 27)) @ np.array([[1, rng.triangular(-0.4, 0.08, 0.56)], [0, 1]])
    lin = lin @ np.diag([rng.uniform(0.75, 1.2), 1])
    wobble = rng.uniform(1.2, 3.6)*np.stack([smooth_noise(rng, 56, 56, 5) for _ in range(2)])
    pressure = 0.5*smooth_noise(rng, 56, 56, 4)
    # The level at which the map is cut sets the pen: drawn toward the usual one, but a bold digit loses little,
    # for its hairlines would break.
    thicker = max((np.clip(rng.normal(3.9, 0.7), 2.9, 5.2) - half)*rng.uniform(0.6, 1), -0.7)

    def ink(center, radius, soft):
        "A square of the map, center and radius in pixels of the map, drawn at twice the final size."
        v, u = np.mgrid[-1:1:57j, -1:1:57j][:, :56, :56] + 1/56
        u, v = center[0] + radius*u, center[1] + radius*v
        x, y = (lin[i, 0]*u + lin[i, 1]*v + (SIDE - 1)/2 + wobble[i] for i in range(2))
        return np.clip((bilinear(dist, x, y) + thicker + pressure)/soft + 0.5, 0, 1)

    # As in MNIST: the digit is scaled to fit a square of 20 pixels and centered by its mass.
    radius = 40
    rough = ink((0, 0), radius, 1)
    rows, cols = (np.flatnonzero(rough.max(axis) > 0.5) for axis in (1, 0))
    middle = [(a[0] + a[-1] - 55)/56*radius for a in (cols, rows)]
    extent = max(np.ptp(rows), np.ptp(cols))/56*2*radius  # in pixels of the map
    im = ink(middle, extent/2*28/rng.uniform(16.5, 20), rng.uniform(1.2, 2.4)).reshape(28, 2, 28, 2).mean((1, 3))
    im = im*np.clip(1 + 0.06*smooth_noise(rng, 28, 28, 9), 0, 1)*rng.uniform(0.92, 1.)
    return 5*to_byte(51*centered(im))  # 52 grays: nobody sees it, and the file is a quarter smaller


def centered(im):
    "Shift by whole pixels so that the center of mass lies in the middle."
    shift = [round((len(im) - 1)/2 - float(im.sum(1 - axis) @ np.arange(len(im)))/im.sum()) for axis in (0, 1)]
    return np.roll(im, shift, (0, 1))


def digits(
    n:int,           # how many
    part:int,        # 0: train, 1: test
    seed:int=1,
)->tuple:            # images (n, 28, 28) and labels (n,), bytes, in random order, as many of each digit
    labels = rng_for(seed, part).permutation(np.arange(n) % 10)
    images = [digit_image(int(l), rng_for(seed, part, i)) for i, l in enumerate(labels)]
    return np.stack(images), labels.astype(np.uint8)
