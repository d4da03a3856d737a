"A colored scene: a textured ground, props, light, and shaded, textured parts laid one over another."
import colorsys
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageDraw

from draw import arc, bilinear, flat, rotation, smooth_noise, spline, to_byte

FINE = 3  # outlines are drawn at three times the size and averaged: soft edges


def random_color(rng, light=(0.25, 0.95), vivid=(0.05, 0.75)):
    "Any hue; brightness and saturation within the bounds."
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*vivid), rng.uniform(*light)))


def palette(
    rng:np.random.Generator,
    n:int,           # colors wanted
    away_from=None,  # a color, from which the first keeps a distance
)->list:
    "Random colors that can be told apart, whatever they are used for: the color says nothing about the class."
    colors = [] if away_from is None else [away_from]
    far = 0.45
    while len(colors) < n + (away_from is not None):
        c = random_color(rng)
        if all(np.abs(c - o).max() > far for o in colors[-2:]): colors.append(c)
        far *= 0.98  # ask for less and less, so that this ends
    return colors[-n:]


# Textures: from coordinates to a number between 0 (the first color) and 1 (the second)

def frac(a): return a - np.floor(a)


def ramp(a, steep): return np.clip(a*steep + 0.5, 0, 1)


def scales(k):
    "Overlapping rows of arcs, as on a fish or a shingled roof."
    def f(u, v):
        row = np.floor(v*k)
        return ramp(np.hypot(frac(u*k + row/2) - 0.5, frac(v*k)) - 0.6, 5)
    return f


def bricks(k, joint=0.12):
    def f(u, v):
        row = np.floor(v*k)
        x, y = frac(u*k/2 + row/2), frac(v*k)
        return np.maximum(x*2 < joint, y < joint).astype(float)
    return f


def stripes(k, angle=0., share=0.5, soft=6.):
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    def f(u, v): return ramp(np.abs(frac((u*c + v*s)*k) - 0.5) - share/2, soft)
    return f


def checks(k):
    def f(u, v): return (np.floor(u*k) + np.floor(v*k)) % 2
    return f


def dots(k, share=0.32):
    "A lattice of dots, every other row moved by a half."
    def f(u, v):
        row = np.floor(v*k*1.15)
        return ramp(share - np.hypot(frac(u*k + row/2) - 0.5, frac(v*k*1.15) - 0.5), 5)
    return f


def patches(rng, cells, steep=3., level=0.):
    "Blotches with soft borders; a high `cells` gives specks."
    tile = smooth_noise(rng, 96, 96, cells)
    def f(u, v): return ramp(bilinear(tile, (u + 1.3)*36, (v + 1.3)*36) - level, steep)
    return f


def streaks(rng, angle=90., cells=26, long=5):
    "Fine hair or grain along a direction, in degrees from the x axis."
    tile = smooth_noise(rng, 96, 96, (cells, max(3, cells//long)))
    m = rotation(-angle)
    def f(u, v):
        along, across = m[0, 0]*u + m[0, 1]*v, m[1, 0]*u + m[1, 1]*v
        return np.clip(0.5 + 0.35*bilinear(tile, (along + 1.5)*32, (across + 1.5)*32), 0, 1)
    return f


class Scene:
    "A picture being made, and the pose of what is drawn into it."

    def __init__(self,
        rng:np.random.Generator,
        short=(128, 144),   # bounds of the shorter side, in pixels
        longest=1.3,        # largest ratio of the sides
    ):
        self.rng = rng
        a = int(rng.integers(*short))
        b = int(a*rng.uniform(1, longest))
        self.w, self.h = (b, a) if rng.random() < 0.7 else (a, b)
        self.im = np.zeros((self.h, self.w, 3))
        self.light = np.deg2rad(rng.uniform(-150, -30))  # where the light comes from: above
        self.contour = rng.choice([0, 0.018, 0.03])      # some draughtsmen draw outlines
        self.fullness = rng.uniform(0.25, 0.5)           # how strongly things are shaded
        self.ground = random_color(rng)
        self.depth = rng.uniform(0.35, 0.9)              # how far the ground's texture stands out
        self.place()

    def place(self, size=1., angle=0., at=(0., 0.), flip=False, squeeze=1., shear=0.):
        "Things drawn from now on have coordinates from -1 to 1, y down, turned, moved and made smaller like this."
        half = min(self.w, self.h)/2
        stretch = np.array([[1, shear], [0, 1]]) @ np.diag([-squeeze if flip else squeeze, 1])
        self.to_px = half*size*rotation(angle) @ stretch
        self.origin = np.array([self.w, self.h])/2 + half*np.asarray(at)
        self.from_px = np.linalg.inv(self.to_px)
        self.unit = half*size

    @contextmanager
    def inside(self, size, at):
        "For a while, coordinates are those of a smaller system in the present one: a head on its body."
        outer = self.to_px, self.origin, self.from_px, self.unit
        self.origin = self.origin + self.to_px @ np.asarray(at, float)
        self.to_px, self.from_px, self.unit = self.to_px*size, self.from_px/size, self.unit*size
        yield
        self.to_px, self.origin, self.from_px, self.unit = outer

    def _mask(self, pts, width=None):
        "The box around the points, as slices, and the covered share of its pixels, (h, w); None outside the picture."
        px = np.asarray(pts, float) @ self.to_px.T + self.origin
        margin = 1 if width is None else width*self.unit/2 + 1
        x0, y0 = np.maximum(np.floor(px.min(0) - margin), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(px.max(0) + margin) + 1, [self.w, self.h]).astype(int)
        if x1 <= x0 or y1 <= y0: return None, None
        im = Image.new('L', ((x1 - x0)*FINE, (y1 - y0)*FINE))
        d = ImageDraw.Draw(im)
        p = (px - [x0, y0])*FINE
        if width is None: d.polygon(flat(p), fill=255)
        else:
            wide = max(1, round(width*self.unit*FINE))
            d.line(flat(p), fill=255, width=wide, joint='curve')
            for x, y in p[[0, -1]]: d.ellipse([x - wide/2, y - wide/2, x + wide/2, y + wide/2], fill=255)
        return (slice(y0, y1), slice(x0, x1)), np.asarray(im.reduce(FINE), float)/255

    def local(self, box):
        "Coordinates of a box's pixels in the thing's own system."
        y, x = np.mgrid[box]
        d = np.stack([x + 0.5 - self.origin[0], y + 0.5 - self.origin[1]])
        return np.tensordot(self.from_px, d, 1)  # (2, h, w)

    def part(self,
        outline,           # (n, 2), in the thing's coordinates
        color,
        color2=None,       # the texture's other color; a darker shade of the first by default
        texture=None,      # from (u, v) to 0..1
        round:float=0.,    # 0 flat .. 1 a ball
        smooth:float=0.,   # 1: a curve through the points
        opacity:float=1.,
        width:float=None,  # given: a stroke of this width along the points, not an area
        contour:bool=True,
    ):
        "Lay one part over what is there."
        pts = spline(outline, closed=width is None, tension=smooth) if smooth else np.asarray(outline, float)
        box, alpha = self._mask(pts, width)
        if box is None: return
        color = np.asarray(color, float)
        paint = np.broadcast_to(color, (*alpha.shape, 3))
        if texture is not None:
            t = texture(*self.local(box))[..., None]
            paint = color*(1 - t) + (color*0.55 if color2 is None else color2)*t
        y, x = np.mgrid[-1:1:alpha.shape[0]*1j, -1:1:alpha.shape[1]*1j]
        lx, ly = np.cos(self.light), np.sin(self.light)
        gain = 1 + 0.5*self.fullness*(x*lx + y*ly)
        if round: gain = gain*(1 + round*(0.12 - self.fullness*0.8*((x - 0.3*lx)**2 + (y - 0.3*ly)**2)))
        paint = paint*gain[..., None]
        if round: paint = paint + round*0.45*np.exp(-((x - 0.5*lx)**2 + (y - 0.5*ly)**2)/0.09)[..., None]
        alpha = alpha[..., None]*opacity
        self.im[box] = self.im[box]*(1 - alpha) + np.clip(paint, 0, 1)*alpha
        if self.contour and contour and width is None:
            self.line(np.concatenate([pts, pts[:1]]), color*0.35, self.contour)

    def line(self, pts, color, width=0.03, opacity=1., smooth=0.):
        "A stroke without shading."
        pts = spline(pts, closed=False, tension=smooth) if smooth else pts
        box, alpha = self._mask(pts, width)
        if box is None: return
        alpha = alpha[..., None]*opacity
        self.im[box] = self.im[box]*(1 - alpha) + np.asarray(color)*alpha

    def tube(self, pts, width, color, smooth=1.):
        "A pipe: dark at its sides, a gleam along the middle."
        pts = spline(pts, closed=False, tension=smooth) if smooth else pts
        color = np.asarray(color)
        for w, c in (1, color*0.45), (0.72, color), (0.22, color*0.4 + 0.6): self.line(pts, c, width*w)

    def disc(self, center, radius, color, **kw):
        radii = (radius, radius) if np.isscalar(radius) else radius
        self.part(arc(center, radii, 0, 360, 28), color, **kw)

    def box(self, x0, y0, x1, y1, color, corner=0., **kw):
        "A rectangle, its corners cut off."
        c = min(corner, abs(x1 - x0)/2, abs(y1 - y0)/2)
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        if c:
            corners = [(x0 + c, y0), (x1 - c, y0), (x1, y0 + c), (x1, y1 - c),
                       (x1 - c, y1), (x0 + c, y1), (x0, y1 - c), (x0, y0 + c)]
        self.part(corners, color, **kw)

    def shadow(self, center, radii, depth=0.45):
        "A soft dark ellipse on the ground."
        box, _ = self._mask(arc(center, radii, 0, 360))
        if box is None: return
        u, v = self.local(box)
        r2 = ((u - center[0])/radii[0])**2 + ((v - center[1])/radii[1])**2
        self.im[box] *= (1 - depth*np.clip(1 - r2, 0, 1))[..., None]

    # The surroundings

    def background(self):
        "One texture, or two that meet at a horizon. Drawn from the same lot for every class."
        rng = self.rng
        self.im[:] = self._ground(self.ground)
        if rng.random() < 0.5:
            other = random_color(rng) if rng.random() < 0.6 else np.clip(self.ground*rng.uniform(0.6, 1.4), 0, 1)
            horizon = self.h*rng.uniform(0.4, 0.8) + rng.normal(0, 0.08)*np.arange(self.w)  # (w,)
            horizon = horizon + rng.uniform(0, 6)*smooth_noise(rng, 1, self.w, (1, 6))
            t = ramp(np.arange(self.h)[:, None] - horizon, 0.5)[..., None]  # (h, w, 1)
            self.im = self.im*(1 - t) + self._ground(other)*t
        for _ in range(rng.choice([0, 0, 1, 2])): self._prop()
        if rng.random() < 0.6: self._blur()

    def _ground(self, color):
        rng, h, w = self.rng, self.h, self.w
        v, u = np.mgrid[:h, :w]/64
        m = rotation(rng.uniform(-15, 15))
        a, b = m[0, 0]*u + m[0, 1]*v, m[1, 0]*u + m[1, 1]*v
        kind = rng.choice('plain clouds grass planks bricks water tiles pebbles weave lights'.split())
        tone = 0.12*smooth_noise(rng, h, w, 3)  # unevenly lit
        k = rng.uniform(2.5, 5)
        def noise(*cells): return smooth_noise(rng, h, w, cells)
        if kind == 'clouds': tone += 0.3*ramp(noise(7, 5), 0.8) + 0.3*(v/v.max() - 0.5)
        if kind == 'grass': tone += 0.13*noise(h//9, w//3) + 0.08*noise(12, 12)
        if kind == 'planks': tone += 0.1*noise(h//4, 6) - 0.3*(frac(b*k/2) < 0.05) + 0.1*np.sin(7*np.floor(b*k/2))
        if kind == 'bricks': tone += 0.28*bricks(k)(a, b) + 0.06*noise(20, 20)
        if kind == 'water': tone += 0.14*noise(h//5, 9) + 0.1*noise(h//12, 4)
        if kind == 'tiles': tone += rng.uniform(0.15, 0.35)*checks(k/2)(a, b)
        if kind == 'pebbles': tone += 0.3*ramp(noise(17, 17), 2.5) - 0.15
        if kind == 'weave': tone += 0.1*np.sin(2*np.pi*k*1.6*a)*np.sin(2*np.pi*k*1.6*b)
        if kind == 'lights':
            for _ in range(rng.integers(5, 14)):
                x, y, r = rng.uniform(0, u.max()), rng.uniform(0, v.max()), rng.uniform(0.08, 0.3)
                tone += rng.uniform(-0.2, 0.35)*ramp(1 - np.hypot(u - x, v - y)/r, 3)
        return np.clip(color*(1 + self.depth*tone[..., None]), 0, 1)

    def _prop(self):
        "Something that is there besides: a ball, a box, a pole, a bush, a ring, a hill."
        rng = self.rng
        self.place(rng.uniform(0.15, 0.5), rng.uniform(-20, 20), rng.uniform(-1.1, 1.1, 2))
        color = random_color(rng)
        texture = rng.choice([None, stripes(rng.uniform(2, 6), rng.uniform(0, 180)), dots(rng.uniform(3, 6)),
                              patches(rng, 9), checks(rng.uniform(2, 5))])
        kind = rng.integers(6)
        if kind == 0: self.disc((0, 0), rng.uniform(0.5, 1), color, round=0.8, texture=texture)
        if kind == 1: self.box(*rng.uniform(-1, -0.4, 2), 0.8, 0.7, color, texture=texture, corner=rng.choice([0, 0.2]))
        if kind == 2:
            self.part([(0, -3), (rng.normal(0, 0.3), 3)], color, width=rng.uniform(0.1, 0.35), texture=texture)
        if kind == 3:
            bush = arc((0, 0), (1, 0.8), 0, 360, 14)*rng.uniform(0.7, 1.2, (14, 1))
            self.part(bush, color, smooth=1, texture=patches(rng, 12))
        if kind == 4:
            ring = arc((0, 0), rng.uniform(0.5, 1, 2), 0, rng.uniform(150, 360), 24)
            self.tube(ring, rng.uniform(0.1, 0.2), color, smooth=0)
        if kind == 5:
            hill = [(-1.3, 0.6), (rng.uniform(-0.5, 0.5), -0.9), (1.3, 0.6)]
            self.part(hill, color, texture=texture, smooth=rng.choice([0, 0.6]))

    def occlude(self):
        "Now and then something in front: a leaf, a pole, the edge of a wall."
        rng = self.rng
        if rng.random() > 0.25: return
        angle = rng.uniform(0, 360)
        at = 0.95*np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
        self.place(rng.uniform(0.35, 0.6), angle + 180 + rng.normal(0, 20), at*[self.w, self.h]/min(self.w, self.h))
        color, kind = random_color(rng), rng.integers(3)
        if kind == 0:
            self.part([(-0.8, 0), (0, -0.38), (0.9, 0), (0, 0.38)], color, smooth=1, texture=stripes(4, 60, 0.15))
        if kind == 1: self.part([(-1, -0.5), (0.2, -0.4), (0.35, 0.5), (-1, 0.6)], color, texture=bricks(5))
        if kind == 2: self.part([(0, -4), (0.1, 4)], color, width=0.3, texture=streaks(rng))

    def _blur(self):
        "The background out of focus."
        p = np.pad(self.im, ((2, 2), (2, 2), (0, 0)), mode='edge')
        p = (p[:-4] + 2*p[1:-3] + 3*p[2:-2] + 2*p[3:-1] + p[4:])/9
        self.im = (p[:, :-4] + 2*p[:, 1:-3] + 3*p[:, 2:-2] + 2*p[:, 3:-1] + p[:, 4:])/9

    def picture(self)->Image.Image:
        "Light over the whole, and bytes."
        rng, im = self.rng, self.im
        y, x = np.mgrid[-1:1:self.h*1j, -1:1:self.w*1j]
        im = im*(1 + rng.uniform(0, 0.3)*(x*np.cos(self.light) + y*np.sin(self.light)))[..., None]
        im = (im - 0.5)*rng.uniform(0.7, 1.1) + 0.5 + rng.normal(0, 0.06)
        return Image.fromarray(to_byte(255*im))
