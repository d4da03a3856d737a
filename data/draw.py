"What every drawn dataset shares: seeded generators, smooth noise, warps, outlines, colors."
import numpy as np
from PIL import Image, ImageDraw

# Everything here computes in float64 and rounds to bytes at the very end: CPUs differ in the last bit of a sine or of
# a sum, and in float64 that last bit practically never moves a byte. So the samples are the same on other machines.


def rng_for(*key): return np.random.default_rng(key)  # one generator per item: items do not depend on their neighbors


def to_byte(a): return np.clip(np.rint(a), 0, 255).astype(np.uint8)


def cubic_basis(
    n_out:int,  # points wanted
    n_in:int,   # points of the coarse grid
)->np.ndarray:  # (n_out, n_in), rows sum to 1
    "Matrix of the uniform cubic B-spline: `cubic_basis(n, k) @ coarse` is a smooth curve of n points."
    x = np.linspace(0, n_in - 1, n_out)[:, None] - np.arange(n_in)[None]  # (n_out, n_in)
    d = np.abs(x)
    b = np.where(d < 1, 2/3 - d**2 + d**3/2, np.where(d < 2, (2 - d)**3/6, 0.))
    return b/b.sum(1, keepdims=True)


_bases = {}
def smooth_noise(
    rng:np.random.Generator,
    h:int, w:int,     # size of the result
    cells:int|tuple,  # the coarse grid: cells in a column and in a row; more cells, finer noise
)->np.ndarray:        # (h, w), mean about 0, standard deviation about 1
    "Random numbers on a coarse grid, interpolated smoothly."
    ch, cw = (cells, cells) if isinstance(cells, int) else cells
    for k in (h, ch), (w, cw):
        if k not in _bases: _bases[k] = cubic_basis(*k)
    return 1.8*_bases[h, ch] @ rng.standard_normal((ch, cw)) @ _bases[w, cw].T


def bilinear(
    img:np.ndarray,            # (h, w)
    x:np.ndarray, y:np.ndarray,  # where to look, in pixels; outside, the border's value
)->np.ndarray:                 # the shape of x
    "Values of `img` between its pixels."
    h, w = img.shape
    x, y = np.clip(x, 0, w - 1.001), np.clip(y, 0, h - 1.001)
    i, j = y.astype(int), x.astype(int)
    fy, fx = y - i, x - j
    top = img[i, j]*(1 - fx) + img[i, j+1]*fx
    low = img[i+1, j]*(1 - fx) + img[i+1, j+1]*fx
    return top*(1 - fy) + low*fy


def rotation(deg):
    c, s = np.cos(np.deg2rad(deg)), np.sin(np.deg2rad(deg))
    return np.array([[c, -s], [s, c]])


def spline(
    pts,              # (n, 2) corners
    closed:bool=True,
    k:int=6,          # points per corner in the result
    tension:float=1., # 0 gives the straight polygon, 1 a Catmull-Rom curve through the corners
)->np.ndarray:        # (n*k, 2)
    "A smooth curve through the points."
    p = np.asarray(pts, float)
    if closed: a, b, c, d = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    else:
        q = np.concatenate([p[:1], p, p[-1:]])
        a, b, c, d = q[:-3], q[1:-2], q[2:-1], q[3:]
    t = (np.arange(k)/k)[None, :, None]
    a, b, c, d = (v[:, None] for v in (a, b, c, d))
    m0, m1 = tension*(c - a)/2, tension*(d - b)/2
    curve = (2*t**3 - 3*t**2 + 1)*b + (t**3 - 2*t**2 + t)*m0 + (3*t**2 - 2*t**3)*c + (t**3 - t**2)*m1
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def arc(center, radii, start, stop, n=14):
    "Points of an ellipse; angles in degrees, clockwise from the right."
    a = np.deg2rad(np.linspace(start, stop, n))
    return np.stack([center[0] + radii[0]*np.cos(a), center[1] + radii[1]*np.sin(a)], 1)


def mirrored(half):
    "Close an outline whose right half is given from top to bottom, x measured from the axis of symmetry."
    half = np.asarray(half, float)
    return np.concatenate([half, half[::-1]*[-1, 1]])


def flat(pts):
    """Points as Pillow wants them, rounded to a thousandth of a pixel.

    Pillow (13.0) decides by `==` whether two pieces of a line need a joint: the last bit of a coordinate would show."""
    return [tuple(p) for p in np.round(np.asarray(pts, float), 3).tolist()]


def fill(
    shape:tuple,     # (h, w)
    *outlines,       # each (n, 2), in pixels; later ones are added
)->np.ndarray:       # (h, w) of 0. and 1.
    "Mask of what lies inside any of the outlines."
    im = Image.new('L', shape[::-1])
    d = ImageDraw.Draw(im)
    for o in outlines: d.polygon(flat(o), fill=255)
    return np.asarray(im, float)/255
