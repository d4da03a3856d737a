"Ten garments in the classes of Fashion-MNIST: 28 by 28, gray on black, laid out flat as in a catalog."
import numpy as np
from PIL import Image, ImageDraw

from draw import arc, fill, flat, mirrored, rng_for, rotation, smooth_noise, spline, to_byte

SIDE = 112  # drawn at four times the size


def cloth(
    rng:np.random.Generator,
    plain:float=0.55,  # how often there is no pattern
)->np.ndarray:         # (SIDE, SIDE), brightness 0 to 1
    "A piece of cloth: its gray, its folds, perhaps a pattern."
    base = rng.uniform(0.22, 0.95)
    folds = 0.05*smooth_noise(rng, SIDE, SIDE, (4, 9)) + 0.03*smooth_noise(rng, SIDE, SIDE, 14)
    pattern = np.zeros((SIDE, SIDE))
    if rng.random() > plain:
        v, u = np.mgrid[:SIDE, :SIDE]
        def wave(a): return np.sin(2*np.pi*a/rng.uniform(9, 24) + rng.uniform(0, 6))
        kind = rng.choice(['rows', 'columns', 'plaid', 'dots', 'print', 'knit'])
        if kind == 'rows': pattern = np.tanh(3*wave(v))
        if kind == 'columns': pattern = np.tanh(3*wave(u))
        if kind == 'plaid': pattern = (np.tanh(3*wave(u)) + np.tanh(3*wave(v)))/2
        if kind == 'dots': pattern = 2*(wave(u)*wave(v) > 0.45)
        if kind == 'print':
            pattern = 2*np.tanh(4*smooth_noise(rng, SIDE, SIDE, 12))
            pattern *= np.hypot(u - 56, 1.2*(v - rng.uniform(42, 60))) < rng.uniform(12, 24)  # on the chest only
        if kind == 'knit': pattern = smooth_noise(rng, SIDE, SIDE, 26)
    contrast = rng.uniform(0.1, 0.3)*rng.choice([-1, 1])
    return np.clip(base*(1 + folds + contrast*pattern), 0.12, 1)


class Table:
    "A black table on which pieces of cloth are laid. Coordinates run from -1 to 1, y down."

    def __init__(self, rng, cloth):
        self.rng, self.cloth = rng, cloth
        self.im = np.zeros((SIDE, SIDE))
        self.shape = rotation(rng.normal(0, 4)) @ np.diag(rng.uniform(0.8, 1.02, 2))
        self.shape = self.shape @ np.array([[1, rng.normal(0, 0.05)], [0, 1]])
        self.bend = rng.normal(0, 0.025, (2, 3, 3))  # a little asymmetry: everything drawn on the table is bent alike
        self.shift = rng.normal(0, 0.04, 2)

    def place(self, pts):
        "From the garment's coordinates to pixels."
        p = np.asarray(pts, float)
        x, y = p.T
        waves = np.stack([np.sin(2.2*x + 1.3*y), np.sin(2.9*y - x), np.cos(4*x*y)])  # (3, n)
        p = p + (self.bend.sum(2) @ waves).T
        return (p @ self.shape.T + self.shift + 1)*(SIDE - 1)/2

    def piece(self, outline, gain=1., value=None, smooth=0.):
        "Lay a piece of the cloth (or of another gray) with this outline."
        pts = self.place(outline)
        if smooth: pts = spline(pts, tension=smooth)
        mask = fill((SIDE, SIDE), pts)
        self.im = np.where(mask > 0, np.clip(self.cloth*gain if value is None else value, 0, 1), self.im)

    def line(self, pts, gain=0.7, width=2):
        "A seam, a fold or an edge: changes what lies below."
        im = Image.new('L', (SIDE, SIDE))
        ImageDraw.Draw(im).line(flat(self.place(pts)), fill=255, width=width, joint='curve')
        self.im = np.where(np.asarray(im) > 0, np.clip(self.im*gain, 0, 1), self.im)

    def hole(self, outline, smooth=0.): self.piece(outline, value=0., smooth=smooth)

    def picture(self):
        im = self.im.reshape(28, 4, 28, 4).mean((1, 3))
        return 8*to_byte(31*np.clip(im, 0, 1))  # 32 grays, for the sake of the file's size


def flip(pts): return np.asarray(pts, float)*[-1, 1]


# Garments for the upper body: one body and two sleeves, which differ in their proportions and in what is sewn on

def upper(t, top, bottom, shoulder, waist, hem, neck, sleeve, angle, cuff, armpit=0.5):
    "Body and sleeves; gives the end of the right sleeve, for a cuff."
    rng = t.rng
    tip = np.array([shoulder, top + rng.uniform(0.08, 0.16)])
    down = np.array([np.sin(angle), np.cos(angle)])
    out = np.array([down[1], -down[0]])
    pit = np.array([min(shoulder - 0.04, waist + 0.03), top + armpit])
    if sleeve:
        end = tip + sleeve*down
        arm = [(neck, top), tip, end, end - cuff*out, pit, (neck, top + armpit)]
        gain = rng.uniform(0.78, 0.97)
        t.piece(arm, gain)
        t.piece(flip(arm), gain)
    body = [(neck, top), tip, pit, (waist, (top + 2*bottom)/3), (hem, bottom), (hem*0.5, bottom + rng.uniform(0, 0.03))]
    t.piece(mirrored(body))
    for side in (1, -1):
        if sleeve: t.line(np.array([tip - [0.02, 0], pit])*[side, 1], rng.uniform(0.65, 0.85))
    if sleeve: return np.array([end, end - cuff*out, end - cuff*out - 0.1*down, end - 0.1*down])


def neckline(t, top, neck, depth, pointed=False):
    "The opening for the head, with the inside of the back just visible."
    ring = [(-neck, top), (0, top + depth), (neck, top)] if pointed else arc((0, top), (neck, depth), 180, 0)
    t.piece([*ring, (neck*0.9, top - 0.03), (-neck*0.9, top - 0.03)], t.rng.uniform(0.3, 0.5))
    t.hole(arc((0, top - 0.04), (neck*0.95, depth*0.45), 180, 0))
    t.line(ring, t.rng.choice([0.72, 1.25]), 3)


def buttons(t, top, bottom, n, x=0.):
    for y in np.linspace(top, bottom, n): t.piece(arc((x, y), (0.03, 0.03), 0, 360, 8), gain=t.rng.choice([0.4, 1.5]))


def collar(t, top, neck, size):
    flap = [(neck*0.9, top - 0.05), (neck + size*0.7, top + size*0.8), (neck*0.35, top + size*1.3),
            (0.0, top + size*0.3)]
    for f in flap, flip(flap):
        t.piece(f, 1.05)
        t.line([*f, f[0]], t.rng.uniform(0.6, 0.85))


def tshirt(t):
    rng = t.rng
    top, neck = rng.uniform(-0.85, -0.75), rng.uniform(0.2, 0.3)
    waist = rng.uniform(0.42, 0.56)
    long = rng.random() < 0.08
    upper(t, top, rng.uniform(0.65, 0.92), rng.uniform(0.5, 0.68), waist, waist + rng.uniform(-0.03, 0.06), neck,
          rng.uniform(1, 1.4) if long else rng.uniform(0.3, 0.65),
          rng.uniform(0.15, 0.5) if long else rng.uniform(0.35, 0.95), rng.uniform(0.2, 0.34))
    neckline(t, top, neck, rng.uniform(0.1, 0.28), pointed=rng.random() < 0.3)


def pullover(t):
    rng = t.rng
    top, neck, bottom = rng.uniform(-0.85, -0.75), rng.uniform(0.18, 0.26), rng.uniform(0.68, 0.88)
    waist = rng.uniform(0.42, 0.54)
    cuff = upper(t, top, bottom, rng.uniform(0.54, 0.64), waist, waist, neck, rng.uniform(1.15, 1.5),
                 rng.uniform(0.12, 0.4), rng.uniform(0.18, 0.26))
    band = rng.uniform(0.75, 1)
    for c in cuff, flip(cuff): t.piece(c, band)
    t.piece([(-waist, bottom), (-waist, bottom - 0.1), (waist, bottom - 0.1), (waist, bottom)], band)
    if rng.random() < 0.3:  # a hood or a rolled collar
        t.piece(arc((0, top), (neck*1.2, rng.uniform(0.1, 0.17)), 0, 360), band)
    else: neckline(t, top, neck, rng.uniform(0.08, 0.25), pointed=rng.random() < 0.25)
    if rng.random() < 0.15: t.line([(0, top + 0.1), (0, rng.choice([-0.3, bottom]))], 0.75)  # a zip


def dress(t):
    rng = t.rng
    top, neck, bottom = -0.95, rng.uniform(0.12, 0.22), rng.uniform(0.88, 0.98)
    shoulder, waist, hem = rng.uniform(0.24, 0.45), rng.uniform(0.2, 0.42), rng.uniform(0.3, 0.7)
    sleeve = rng.choice([0, rng.uniform(0.25, 0.5), rng.uniform(0.8, 1.15)], p=[0.5, 0.3, 0.2])
    if sleeve:
        upper(t, top, top + 1, shoulder, waist, waist, neck, sleeve, rng.uniform(0.15, 0.5), rng.uniform(0.12, 0.18),
              armpit=0.4)
    middle = rng.uniform(-0.35, 0.05)
    t.piece(mirrored([(neck, top), (shoulder, top + 0.06), (waist + 0.05, top + 0.4), (waist, middle),
                      (hem*0.85 + waist*0.15, (middle + 2*bottom)/3), (hem, bottom)]))
    neckline(t, top, neck, rng.uniform(0.1, 0.35), pointed=rng.random() < 0.4)
    if rng.random() < 0.35: t.line([(-waist, middle), (waist, middle)], 0.6, 4)
    for x in rng.uniform(-0.6, 0.6, rng.integers(0, 4)): t.line([(x*waist, middle + 0.05), (x*hem, bottom)], 0.82)


def coat(t):
    rng = t.rng
    top, neck, bottom = rng.uniform(-0.95, -0.82), rng.uniform(0.14, 0.22), rng.uniform(0.72, 0.97)
    waist = rng.uniform(0.4, 0.52)
    hem = waist + rng.uniform(0, 0.12)
    upper(t, top, bottom, rng.uniform(0.5, 0.6), waist, hem, neck, rng.uniform(1.2, 1.5), rng.uniform(0.1, 0.3),
          rng.uniform(0.18, 0.26))
    if rng.random() < 0.25:  # closed to the neck
        t.piece(arc((0, top + 0.02), (neck*1.1, rng.uniform(0.06, 0.14)), 0, 360), rng.uniform(0.7, 0.95))
        t.line([(0, top), (0.01, bottom)], rng.uniform(0.6, 0.85), 2)
        return
    depth = rng.uniform(0.2, 0.7)
    t.piece([(-neck, top), (0, top + depth), (neck, top), (0.1, top - 0.02), (-0.1, top - 0.02)],
            value=t.cloth*rng.uniform(0.2, 0.5))
    lapel = [(neck, top - 0.03), (neck + 0.14, top + 0.3*depth), (0.02, top + depth + 0.05),
             (neck*0.6, top + 0.3*depth)]
    for f in lapel, flip(lapel):
        t.piece(f, rng.uniform(0.9, 1.1))
        t.line([*f, f[0]], rng.uniform(0.65, 0.85))
    t.line([(0, top + depth), (0.01, bottom)], rng.uniform(0.35, 0.65), 3)
    if rng.random() < 0.6: buttons(t, top + depth + 0.1, bottom - 0.35, rng.integers(2, 5), 0.09)
    if rng.random() < 0.6:
        for side in (1, -1): t.line(np.array([(0.2, 0.35), (0.36, 0.28)])*[side, 1], 0.55, 3)


def shirt(t):
    rng = t.rng
    top, neck, bottom = rng.uniform(-0.88, -0.78), rng.uniform(0.16, 0.24), rng.uniform(0.7, 0.92)
    waist = rng.uniform(0.4, 0.54)
    long = rng.random() < 0.6
    upper(t, top, bottom, rng.uniform(0.54, 0.64), waist, waist + rng.uniform(-0.02, 0.06), neck,
          rng.uniform(1.1, 1.45) if long else rng.uniform(0.35, 0.6),
          rng.uniform(0.12, 0.45) if long else rng.uniform(0.35, 0.8), rng.uniform(0.18, 0.28))
    placket = bottom if rng.random() < 0.75 else top + rng.uniform(0.4, 0.6)  # a polo shirt's is short
    t.line([(0.03, top + 0.1), (0.03, placket)], rng.uniform(0.68, 0.85))
    if rng.random() < 0.6: buttons(t, top + 0.22, placket - 0.08, 3 if placket < bottom else 6)
    if rng.random() < 0.2: return neckline(t, top, neck, rng.uniform(0.1, 0.25))  # a blouse has no collar
    t.piece([(-neck, top - 0.02), (0, top + 0.2), (neck, top - 0.02)], 0.35)
    collar(t, top, neck, rng.uniform(0.14, 0.24))
    if rng.random() < 0.4: t.line([(0.16, -0.28), (0.34, -0.28), (0.34, -0.06), (0.16, -0.06), (0.16, -0.28)], 0.75)


# The rest

def trouser(t):
    rng = t.rng
    top, bottom = rng.uniform(-0.97, -0.9), rng.uniform(0.88, 0.98)
    waist, hip = rng.uniform(0.24, 0.36), rng.uniform(0.34, 0.46)
    cuff, spread, crotch = rng.uniform(0.13, 0.26), rng.uniform(0.14, 0.4), rng.uniform(-0.35, -0.15)
    leg = [(0, top), (waist, top), (hip, crotch), (spread + cuff/2 + 0.02, bottom), (spread - cuff/2, bottom),
           (0.02, crotch)]
    t.piece(leg)
    t.piece(flip(leg), rng.uniform(0.85, 1))
    t.line([(0, top), (0, crotch)], 0.6)
    t.line([(-waist, top + 0.1), (waist, top + 0.1)], 0.7)
    if rng.random() < 0.5:
        for side in (1, -1): t.line(np.array([(waist*0.6, top + 0.1), (hip*0.95, top + 0.35)])*[side, 1], 0.65)
    if rng.random() < 0.4:
        for side in (1, -1): t.line(np.array([((waist)/2, top + 0.2), (spread, bottom)])*[side, 1], 1.2)


def sole(t, base, heel, thick, value):
    "From the toe on the left to the heel on the right; the ground is at `base`."
    if heel > 0.08:
        t.piece([(-0.95, base - 0.06), (-0.9, base), (-0.2, base), (0.3, base - heel), (0.45, base - heel), (0.5, base),
                 (0.9, base), (0.93, base - thick - heel), (0.4, base - heel - thick), (-0.3, base - thick)],
                value=value)
    else:
        t.piece([(-0.95, base - thick), (-0.93, base), (0.9, base), (0.93, base - thick), (0, base - thick)],
                value=value)


def sandal(t):
    rng = t.rng
    heel, thick = rng.choice([0, rng.uniform(0.2, 0.6)], p=[0.55, 0.45]), rng.uniform(0.08, 0.15)
    base = rng.uniform(0.3, 0.5) + heel/3
    def foot(x): return base - thick - heel*np.clip((x + 0.4)/0.8, 0, 1)  # height of the foot bed
    strap, lean = rng.uniform(0.13, 0.2), rng.uniform(0.05, 0.3)

    def band(x, width, height):
        "A strap that rises from the foot bed at x and leans back over the foot."
        t.piece([(x, foot(x)), (x + lean*0.6, foot(x) - height), (x + lean + width*0.7, foot(x) - height - 0.05),
                 (x + width, foot(x + width))], rng.uniform(0.8, 1), smooth=0.3)

    for x in np.arange(rng.uniform(-0.8, -0.6), rng.uniform(-0.45, 0.05), strap + rng.uniform(0.1, 0.2)):
        band(x, strap*rng.uniform(1, 1.6), rng.uniform(0.3, 0.4) + 0.25*(x + 0.8))
    high = foot(0.8) - rng.uniform(0.35, 0.75)
    if rng.random() < 0.8:  # round the heel and the ankle
        t.piece([(0.9, foot(0.9)), (0.92, high), (0.9 - strap, high), (0.86 - strap, foot(0.8))])
        t.piece([(0.92, high), (0.92, high + strap), (0.2, high + strap*1.2), (0.15, high + 0.2*strap)])
        if rng.random() < 0.6: t.piece([(0.17, high + 0.02), (0.3, high + 0.08), (0, foot(0)), (-0.3, foot(-0.3))])
    if heel and rng.random() < 0.4:  # a wedge
        t.piece([(-0.95, base - thick), (-0.93, base), (0.9, base), (0.93, foot(0.9)), (0.4, foot(0.4)),
                 (-0.4, foot(-0.4))], value=t.cloth*rng.uniform(0.5, 1))
    else: sole(t, base, heel if heel > 0.08 else 0, thick, rng.uniform(0.35, 0.95))


def laces(t, points, n):
    start, end = np.asarray(points)
    for a in np.linspace(0, 1, n):
        middle = start + a*(end - start)
        t.line([middle + [-0.08, 0.1], middle + [0.1, 0]], t.rng.choice([0.5, 1.6]), 3)


def sneaker(t):
    rng = t.rng
    base, thick, height = rng.uniform(0.38, 0.52), rng.uniform(0.1, 0.2), rng.uniform(0.55, 0.95)
    y = base - thick
    tongue = rng.uniform(0.05, 0.3)
    t.piece([(-0.93, y + 0.03), (-0.9, y - 0.2), (-0.6, y - 0.3), (-0.1, y - height*0.8), (tongue, y - height*1.05),
             (tongue + 0.12, y - height*0.85),
             (0.6, y - height*0.75), (0.86, y - height*0.95), (0.92, y - 0.3), (0.9, y + 0.03)], smooth=0.5)
    sole(t, base, 0, thick, rng.uniform(0.5, 1))
    t.line([(-0.93, y), (0.9, y)], 0.5)
    laces(t, ((-0.42, y - 0.4), (tongue - 0.1, y - height*0.85)), rng.integers(2, 5))
    kind = rng.integers(4)
    if kind == 0:
        t.line(spline([(-0.3, y - 0.1), (0.1, y - 0.08), (0.75, y - 0.45)], closed=False), rng.choice([0.45, 1.7]), 5)
    if kind == 1:
        for x in (0.0, 0.2, 0.4): t.line([(x, y - 0.05), (x - 0.18, y - 0.4)], rng.choice([0.5, 1.6]), 4)
    if kind == 2: t.piece([(-0.93, y), (-0.9, y - 0.2), (-0.6, y - 0.28), (-0.55, y)], rng.choice([0.6, 1.4]))
    if rng.random() < 0.5: t.piece([(0.66, y), (0.68, y - 0.4), (0.9, y - 0.4), (0.9, y)], 0.8)


def ankle_boot(t):
    rng = t.rng
    base, heel, thick = rng.uniform(0.75, 0.9), rng.choice([0.05, rng.uniform(0.15, 0.45)]), rng.uniform(0.07, 0.13)
    top, y = rng.uniform(-0.9, -0.2), base - thick
    back, front = rng.uniform(0.84, 0.93), rng.uniform(-0.1, 0.15)
    t.piece([(-0.93, y + 0.02), (-0.9, y - 0.2), (-0.5, y - 0.36), (front - 0.08, y - 0.62 - heel/2),
             (front, top + 0.04), (back, top), (0.82, y - heel - 0.45), (0.92, y - heel - 0.1),
             (0.9, y - heel + 0.02), (0.35, y - heel), (-0.25, y + 0.02)], smooth=0.4)
    sole(t, base, heel if heel > 0.08 else 0, thick, rng.uniform(0.25, 0.8))
    if rng.random() < 0.4: laces(t, ((front - 0.25, y - 0.6), (front + 0.05, top + 0.2)), rng.integers(3, 6))
    if rng.random() < 0.4:
        t.piece([(front + 0.25, top + 0.05), (front + 0.5, top + 0.05), (front + 0.5, y - 0.5), (front + 0.3, y - 0.5)],
                0.6)
    if rng.random() < 0.5: t.line([(front - 0.05, top + 0.18), (back, top + 0.12)], 0.65, 3)
    if rng.random() < 0.3:
        t.piece([(front, y - 0.72), (0.88, y - 0.62 - heel/2), (0.88, y - 0.5 - heel/2), (front - 0.1, y - 0.58)], 1.35)


def bag(t):
    rng = t.rng
    top, bottom = rng.uniform(-0.4, 0.0), rng.uniform(0.55, 0.9)
    wide, narrow = rng.uniform(0.65, 0.95), rng.uniform(0.55, 0.95)
    kind = rng.choice(['arc', 'two', 'none'], p=[0.55, 0.3, 0.15])
    if kind == 'none': top, bottom = rng.uniform(-0.6, -0.4), rng.uniform(0.4, 0.6)
    else:
        reach = rng.uniform(0.45, min(1, top + 0.97))
        for dx in ((0,) if kind == 'arc' else (-0.07, 0.07)):
            t.piece(arc((dx, top + 0.02), (rng.uniform(0.3, 0.6)*wide, reach), 180, 360), rng.uniform(0.6, 0.95))
        t.hole(arc((0, top + 0.02), (rng.uniform(0.2, 0.26)*wide + 0.05, reach - rng.uniform(0.1, 0.16)), 180, 360))
    t.piece(mirrored([(wide*narrow, top), (wide, (top + bottom)/2), (wide*rng.uniform(0.85, 1), bottom - 0.06),
                      (wide*0.8, bottom)]), smooth=rng.uniform(0, 0.5))
    if rng.random() < 0.55:
        flap = top + rng.uniform(0.25, 0.55)*(bottom - top)
        t.line([(-wide*0.95, top + 0.1), (-wide*0.6, flap), (wide*0.6, flap), (wide*0.95, top + 0.1)], 0.6, 3)
        t.piece(arc((0, flap), (0.07, 0.07), 0, 360, 10), rng.choice([0.4, 1.6]))
    else: t.line([(-wide*narrow, top + 0.1), (wide*narrow, top + 0.1)], 0.6, 3)
    if rng.random() < 0.3: t.line([(-wide*0.85, (top + bottom)/2 + 0.1), (wide*0.85, (top + bottom)/2 + 0.1)], 0.7)


# In the order of Fashion-MNIST.
GARMENTS = [tshirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle_boot]


def garment(i, label, part, seed=2):
    "The garment with number `i` of a part, (28, 28)."
    rng = rng_for(seed, part, i)
    t = Table(rng, cloth(rng))
    GARMENTS[label](t)
    return t.picture()


def garments(
    n:int,       # how many
    part:int,    # 0: train, 1: test
    seed:int=2,
)->tuple:        # images (n, 28, 28) and labels (n,), bytes, in random order, as many of each garment
    labels = rng_for(seed, part).permutation(np.arange(n) % 10)
    return np.stack([garment(i, l, part, seed) for i, l in enumerate(labels)]), labels.astype(np.uint8)
