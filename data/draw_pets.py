"Four breeds of cats and four of dogs, drawn as the objects are, filed as the Oxford pets are: by name_number.jpg."
import colorsys

import numpy as np

from draw import arc, mirrored, rng_for, spline
from draw_objects import compose, eye, save_jpeg
from draw_scene import patches, ramp, streaks, stripes

DARK = np.array([0.12, 0.1, 0.1])


def coat_colors(s, c):
    "Three colors of hair, the same lot for every breed: mostly such as hair has, now and then any."
    if s.rng.random() < 0.25: return c
    r = s.rng.uniform
    values = s.rng.permutation([r(0.35, 0.55), r(0.6, 0.75), r(0.85, 1)])
    return [np.array(colorsys.hsv_to_rgb(r(0.03, 0.13), r(0.05, 0.6), v)) for v in values]


def fluffy(outline, depth, rng, k=3):
    "The outline with tufts of hair."
    p = spline(outline, k=k)
    out = p - p.mean(0)
    out = out/np.hypot(out[:, 0], out[:, 1])[:, None]
    return p + out*depth*np.where(np.arange(len(p)) % 2, rng.uniform(0.3, 1.3, len(p)), 0)[:, None]


def rosettes(rng, k):
    "Dark rings that are not quite round, as on a leopard."
    bend = patches(rng, 8, 1)
    def f(u, v):
        u = u + 0.12*bend(u, v)
        row = np.floor(v*k)
        d = np.hypot((u*k + row/2) % 1 - 0.5, v*k - row - 0.5)
        return ramp(0.13 - np.abs(d - 0.3), 12)
    return f


def both(outline):
    "The outline and its mirror image."
    o = np.asarray(outline, float)
    return o, o*[-1, 1]


def ears(s, outline, color, inner=None, **kw):
    "A pair; `inner` is the color of the inside, drawn smaller."
    for o in both(outline):
        s.part(o, color, **kw)
        middle = o.mean(0)
        if inner is not None:
            s.part((o - middle)*0.55 + middle + [0, 0.03], inner, smooth=kw.get('smooth', 0), contour=False)


def cat_eyes(s, at, size, color, slant=0.):
    "Almonds (or circles, when the two sizes agree) with upright pupils."
    for side in (1, -1):
        o = arc((0, 0), size, 0, 360, 12)
        o = o + np.stack([0*o[:, 0], -slant*o[:, 0]], 1)
        s.part((o + at)*[side, 1], color)
        s.disc(np.array(at)*[side, 1], (size[0]*s.rng.uniform(0.22, 0.5), size[1]*0.85), DARK*0.4, contour=False)
        s.disc(np.array(at)*[side, 1] + np.array(size)*[0.25, -0.35], min(size)*0.22, (1, 1, 1), contour=False)


def cat_mouth(s, y, nose):
    s.part([(-0.09, y), (0.09, y), (0, y + 0.09)], nose, smooth=0.3)
    for side in (1, -1):
        s.line(np.array([(0, y + 0.08), (0.05, y + 0.19), (0.17, y + 0.17)])*[side, 1], DARK, 0.03, smooth=1)
        for dy in (-0.06, 0.02, 0.1):
            s.line([(side*0.2, y + 0.12 + dy*0.3), (side*0.85, y + 0.06 + dy*2)], (0.95, 0.95, 0.95), 0.016)


def dog_nose(s, y, size=0.16):
    s.part([(-size, y), (-size*0.6, y - size*0.5), (size*0.6, y - size*0.5), (size, y), (0, y + size*0.75)], DARK,
           smooth=0.7, round=0.6)


def eye_color(s): return np.array(colorsys.hsv_to_rgb(s.rng.uniform(0.1, 0.6), 0.7, 0.85))


# Heads, seen from the front, between -1 and 1. `fur` is what the whole animal is covered with.

def abyssinian(s, c, fur):
    ears(s, [(0.18, -0.5), (0.5, -1.0), (0.78, -0.95), (0.72, -0.2)], c[0], (0.85, 0.6, 0.55), smooth=0.25)
    s.part(mirrored([(0.2, -0.6), (0.62, -0.4), (0.66, 0.0), (0.4, 0.5), (0.18, 0.72)]), c[0], smooth=1, round=0.3,
           **fur)
    s.part(mirrored([(0.1, 0.12), (0.26, 0.35), (0.2, 0.62)]), c[2], smooth=1, contour=False)
    for x in (-0.16, 0, 0.16): s.line([(x, -0.52), (x*0.8, -0.28)], c[0]*0.5, 0.04)
    cat_eyes(s, (0.31, -0.08), (0.15, 0.11), eye_color(s), 0.35)
    cat_mouth(s, 0.3, (0.7, 0.35, 0.3))


def bengal(s, c, fur):
    ears(s, [(0.25, -0.5), (0.5, -0.85), (0.68, -0.8), (0.76, -0.3)], c[0]*0.8, (0.8, 0.6, 0.55), smooth=0.7)
    s.part(mirrored([(0.22, -0.62), (0.66, -0.45), (0.78, 0.02), (0.55, 0.5), (0.22, 0.68)]), c[0], smooth=1, round=0.3,
           **fur)
    for x in (-0.3, -0.1, 0.1, 0.3): s.line([(x, -0.58), (x*0.7, -0.22)], DARK*1.5, 0.055)
    for o in both([(0.42, 0.1), (0.75, 0.2)]): s.line(o, DARK*1.5, 0.05)
    s.part(mirrored([(0.14, 0.15), (0.34, 0.35), (0.24, 0.6)]), c[2], smooth=1, contour=False)
    cat_eyes(s, (0.31, -0.06), (0.15, 0.13), eye_color(s), 0.15)
    cat_mouth(s, 0.26, (0.6, 0.3, 0.3))


def persian(s, c, fur):
    ears(s, [(0.42, -0.5), (0.58, -0.78), (0.78, -0.72), (0.85, -0.3)], c[0], (0.85, 0.65, 0.6), smooth=0.5)
    s.part(fluffy(mirrored([(0.25, -0.66), (0.72, -0.5), (0.95, 0.05), (0.8, 0.55), (0.35, 0.8)]), 0.13, s.rng), c[0],
           round=0.3, **fur)
    s.part(mirrored([(0.16, 0.1), (0.42, 0.25), (0.4, 0.5), (0.15, 0.62)]), c[2], smooth=1, contour=False)
    cat_eyes(s, (0.36, -0.06), (0.19, 0.19), eye_color(s))
    cat_mouth(s, 0.08, (0.75, 0.4, 0.4))


def siamese(s, c, fur):
    mask = c[0]*0.25
    ears(s, [(0.12, -0.45), (0.55, -1.0), (0.9, -0.9), (0.68, -0.05)], mask, mask*2.2, smooth=0.15)
    s.part(mirrored([(0.15, -0.58), (0.55, -0.4), (0.6, -0.05), (0.3, 0.5), (0.14, 0.75)]), c[0]*0.4 + 0.55, smooth=0.9,
           round=0.3, **fur)
    s.part(mirrored([(0.06, -0.2), (0.15, 0.1), (0.26, 0.42), (0.12, 0.72)]), mask, smooth=0.9, contour=False,
           round=0.2)
    cat_eyes(s, (0.3, -0.1), (0.16, 0.1), (0.45, 0.68, 0.95), 0.5)
    cat_mouth(s, 0.36, (0.25, 0.2, 0.2))


def beagle(s, c, fur):
    s.part(mirrored([(0.25, -0.7), (0.58, -0.45), (0.56, 0.1), (0.42, 0.55), (0.15, 0.72)]), c[0], smooth=1, round=0.3,
           **fur)
    s.part(mirrored([(0.07, -0.72), (0.1, -0.2), (0.36, 0.2), (0.34, 0.55), (0.12, 0.72)]),
           np.clip(c[2]*0.4 + 0.6, 0, 1), smooth=0.8, contour=False)
    ears(s, [(0.4, -0.58), (0.7, -0.5), (0.95, 0.1), (0.86, 0.62), (0.62, 0.62), (0.54, 0.0)], c[0]*0.65, smooth=1,
         round=0.3, texture=streaks(s.rng, 80))
    for x in (-0.29, 0.29): eye(s, (x, -0.12), 0.11, (0.4, 0.25, 0.12))
    dog_nose(s, 0.22)
    for side in (1, -1): s.line(np.array([(0, 0.32), (0.05, 0.46), (0.24, 0.44)])*[side, 1], DARK, 0.035, smooth=1)


def boxer(s, c, fur):
    ears(s, [(0.32, -0.62), (0.6, -0.75), (0.84, -0.38), (0.74, -0.12), (0.52, -0.3)], c[0]*0.7, smooth=0.4)
    s.part(mirrored([(0.3, -0.7), (0.6, -0.45), (0.62, 0.1), (0.58, 0.6), (0.25, 0.75)]), c[0], smooth=0.7, round=0.3,
           **fur)
    s.part([(-0.06, -0.7), (0.06, -0.7), (0.12, 0.1), (-0.12, 0.1)], c[2], contour=False)
    jowls = mirrored([(0.2, 0.02), (0.5, 0.12), (0.62, 0.5), (0.4, 0.75), (0.12, 0.6)])
    s.part(jowls, DARK*1.6, smooth=0.7, round=0.3)
    s.part(mirrored([(0.18, 0.62), (0.3, 0.72), (0.2, 0.86)]), c[0]*0.8, smooth=0.8)
    for x in (-0.3, 0.3): eye(s, (x, -0.14), 0.1, (0.35, 0.22, 0.1))
    for o in both([(0.1, -0.36), (0.32, -0.32), (0.45, -0.22)]): s.line(o, c[0]*0.4, 0.035, smooth=1)
    dog_nose(s, 0.16, 0.18)
    s.line([(0, 0.26), (0, 0.58)], (0.02, 0.02, 0.02), 0.03)


def pug(s, c, fur):
    s.part(mirrored([(0.3, -0.66), (0.76, -0.4), (0.86, 0.15), (0.6, 0.62), (0.25, 0.74)]), c[0], smooth=1, round=0.4,
           **fur)
    ears(s, [(0.42, -0.62), (0.78, -0.55), (0.96, -0.12), (0.82, 0.08), (0.62, -0.3)], DARK*1.4, smooth=0.5)
    for y, w in ((-0.45, 0.22), (-0.34, 0.3), (-0.23, 0.22)):  # wrinkles
        s.line([(-w, y + 0.07), (0, y), (w, y + 0.07)], c[0]*0.4, 0.045, smooth=1)
    s.part(mirrored([(0.14, -0.08), (0.42, 0.12), (0.46, 0.42), (0.2, 0.62)]), DARK*1.5, smooth=1, round=0.4,
           contour=False)
    for x in (-0.42, 0.42): eye(s, (x, -0.06), 0.17, (0.3, 0.2, 0.12))
    dog_nose(s, 0.13, 0.12)
    for side in (1, -1):
        s.line(np.array([(0, 0.2), (0.06, 0.36), (0.32, 0.42)])*[side, 1], (0.5, 0.45, 0.45), 0.03, smooth=1)


def samoyed(s, c, fur):
    ears(s, [(0.3, -0.52), (0.5, -0.88), (0.66, -0.84), (0.74, -0.32)], c[0], (0.85, 0.65, 0.62), smooth=0.4)
    s.part(fluffy(mirrored([(0.25, -0.62), (0.68, -0.42), (0.9, 0.1), (0.82, 0.6), (0.35, 0.85)]), 0.16, s.rng), c[0],
           round=0.3, **fur)
    s.part(mirrored([(0.14, -0.1), (0.34, 0.15), (0.36, 0.4), (0.14, 0.5)]), c[0]*0.4 + 0.6, smooth=1, contour=False)
    for x in (-0.28, 0.28): eye(s, (x, -0.12), 0.095, (0.25, 0.16, 0.1))
    dog_nose(s, 0.14, 0.15)
    s.part([(-0.2, 0.38), (0.2, 0.38), (0.1, 0.62), (-0.1, 0.62)], (0.9, 0.45, 0.5), smooth=0.8)
    s.line([(-0.42, 0.26), (-0.22, 0.4), (0, 0.34), (0.22, 0.4), (0.42, 0.26)], DARK, 0.045, smooth=1)  # the smile


# What covers each breed, and whether its hair stands off

BREEDS = {  # name as in the file names: cats with a capital, dogs without
    'Abyssinian': (abyssinian, lambda rng: patches(rng, 60, 0.45), 0),
    'Bengal': (bengal, lambda rng: rosettes(rng, rng.uniform(3.2, 4.4)), 0),
    'Persian': (persian, lambda rng: streaks(rng, 80, 22), 0.14),
    'Siamese': (siamese, lambda rng: patches(rng, 3, 0.5, 0.5), 0),
    'beagle': (beagle, lambda rng: patches(rng, 5, 8), 0),
    'boxer': (boxer, lambda rng: stripes(rng.uniform(4, 6), rng.uniform(50, 130), 0.2, 2), 0),
    'pug': (pug, lambda rng: patches(rng, 24, 0.4, 0.4), 0),
    'samoyed': (samoyed, lambda rng: streaks(rng, 100, 18, 3), 0.16)}


def pet(breed):
    "A function that draws one: its head, or the animal sitting."
    head, texture, tufts = BREEDS[breed]

    def draw(s, c):
        r = s.rng.uniform
        c = coat_colors(s, c)
        second = {'Bengal': c[0]*0.45, 'beagle': c[2]}.get(breed, c[0]*r(0.6, 0.8))
        fur = dict(texture=texture(s.rng), color2=second)
        def hair(outline): return fluffy(outline, tufts, s.rng) if tufts else spline(outline)
        base = c[0]*0.4 + 0.55 if breed == 'Siamese' else c[0]
        if s.rng.random() < 0.45:  # the head fills the picture
            s.part(hair(mirrored([(0.35, 0.3), (0.75, 0.7), (0.95, 1.5), (0.3, 1.6)])), base, **fur)
            with s.inside(r(0.85, 0.98), (r(-0.08, 0.08), -0.05)): head(s, c, fur)
            return
        tail = r(0.1, 0.5)
        limb = c[0]*0.25 if breed == 'Siamese' else c[0]
        on_limbs = {} if breed == 'Siamese' else fur
        s.part([(0.3, 0.85), (0.75, 0.8), (0.9, tail)], limb, width=r(0.1, 0.14) + tufts, smooth=1, **on_limbs)
        s.part(hair(mirrored([(0.2, -0.2), (0.42, 0.25), (0.6, 0.75), (0.35, 0.95)])), base, round=0.3, **fur)
        s.part(hair(mirrored([(0.12, 0.05), (0.24, 0.3), (0.2, 0.6)])), np.clip(base*1.25, 0, 1), contour=False)
        for x in (-0.17, 0.17):
            s.part([(x, 0.35), (x, 0.88)], limb, width=0.17, **on_limbs)
            s.disc((x, 0.9), (0.13, 0.08), limb)
        with s.inside(r(0.5, 0.6), (r(-0.12, 0.12), -0.42)): head(s, c, fur)
    return draw


def make_pets(
    folder,     # gets pets/images/<breed>_<number>.jpg
    n:int=40,   # images of each breed
    seed:int=4,
):
    place = folder/'pets'/'images'
    place.mkdir(parents=True)
    for b, breed in enumerate(BREEDS):
        for i in range(n):
            im = compose(rng_for(seed, b, i), pet(breed), size=(0.75, 1.))
            save_jpeg(im, place/f'{breed}_{i + 1}.jpg')
