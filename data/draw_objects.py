"Ten kinds of drawn objects on textured grounds, filed as Imagenette files its photographs."
import numpy as np

from draw import arc, rng_for, spline
from draw_scene import Scene, bricks, dots, palette, patches, scales, streaks, stripes

# Each function draws its object with its middle at 0, between -1 and 1, in the colors it is given. Colors are random:
# what tells a fish from a parachute is the shape and what it is covered with.


def eye(s, at, r, color=(0.95, 0.93, 0.85)):
    s.disc(at, r, color, contour=False)
    s.disc(at, r*0.55, (0.05, 0.04, 0.06), contour=False)
    s.disc(np.asarray(at) + r*0.2*np.array([np.cos(s.light), np.sin(s.light)]), r*0.18, (1, 1, 1), contour=False)


def tench(s, c):
    "A fish: scales, fins, forked tail."
    r = s.rng.uniform
    deep, fork, swim = r(0.28, 0.42), r(0.12, 0.3), r(-0.1, 0.1)
    fin = dict(texture=stripes(r(7, 11), r(40, 90), 0.3), smooth=0.7)
    s.part([(0.55, swim*0.5), (0.98, -0.36 + swim), (0.95 - fork, swim), (0.98, 0.36 + swim), (0.55, swim*0.5 + 0.04)],
           c[1], **fin)
    s.part([(-0.25, -deep*0.8), (0.0, -deep - r(0.15, 0.3)), (0.35, -deep*0.75), (0.3, -deep*0.4)], c[1], **fin)
    s.part([(0.1, deep*0.7), (0.28, deep + 0.2), (0.36, deep*0.5)], c[1], **fin)
    body = [(-0.95, 0.04), (-0.7, -deep*0.7), (-0.2, -deep), (0.35, -deep*0.6), (0.72, -0.09 + swim*0.5),
            (0.72, 0.11 + swim*0.5), (0.35, deep*0.6), (-0.2, deep*0.95), (-0.7, deep*0.6)]
    s.part(body, c[0], texture=scales(r(6, 10)), color2=c[0]*r(0.5, 0.75), smooth=1, round=0.7)
    s.part([(-0.95, 0.04), (-0.72, -deep*0.66), (-0.5, -deep*0.75), (-0.42, 0), (-0.52, deep*0.68), (-0.72, deep*0.6)],
           c[0]*0.9, smooth=0.8, round=0.4)
    s.line([(-0.5, -deep*0.72), (-0.4, 0), (-0.52, deep*0.66)], c[0]*0.3, 0.035, smooth=1)
    s.part([(-0.38, 0.08), (-0.05, 0.2), (-0.15, 0.36), (-0.36, 0.2)], c[1], **fin)
    eye(s, (-0.7, -0.09), r(0.055, 0.085))
    s.line([(-0.94, 0.06), (-0.8, 0.12)], c[0]*0.3, 0.03)


def spaniel_head(s, c, coat):
    "A dog's head seen from the side, looking left."
    s.part([(-0.95, 0.1), (-0.9, -0.12), (-0.45, -0.2), (-0.25, -0.6), (0.2, -0.68), (0.55, -0.4), (0.6, 0.2),
            (0.2, 0.5), (-0.3, 0.4), (-0.85, 0.32)], c[0], smooth=1, round=0.3, **coat)
    blaze = [(-0.3, -0.62), (-0.05, -0.68), (-0.4, 0.0), (-0.9, 0.0), (-0.88, -0.1), (-0.45, -0.18)]
    s.part(blaze, c[1], smooth=0.8, contour=False)
    s.part([(0.05, -0.5), (0.45, -0.52), (0.72, 0.0), (0.7, 0.75), (0.42, 0.95), (0.15, 0.6), (0.1, 0.1)], c[0]*0.75,
           smooth=1, round=0.2, texture=streaks(s.rng, 80), color2=c[0]*0.5)
    s.disc((-0.92, -0.06), 0.11, (0.08, 0.06, 0.07))
    eye(s, (-0.2, -0.22), 0.09, (0.5, 0.35, 0.2))
    s.line([(-0.85, 0.22), (-0.5, 0.27), (-0.3, 0.2)], c[0]*0.25, 0.04)


def springer(s, c):
    "A dog with long ears and a coat in patches; the whole animal or its head."
    r = s.rng.uniform
    coat = dict(texture=patches(s.rng, 5, 9, r(-0.3, 0.4)), color2=c[1])
    if s.rng.random() < 0.4:
        s.part([(-0.1, 0.2), (0.6, 0.0), (0.95, 1.2), (-0.35, 1.2)], c[0], smooth=0.6, **coat)
        with s.inside(r(0.75, 0.95), (-0.05, -0.2)): spaniel_head(s, c, coat)
        return
    walk, long = r(-0.12, 0.12), r(0.48, 0.6)
    for x, dx, shade in ((-0.3, walk, 0.7), (long - 0.12, -walk, 0.7), (-0.22, -walk, 1), (long, walk, 1)):
        thigh = 0.16 if x > 0 else 0.11
        leg = [(x - thigh, 0.05), (x + thigh, 0.05), (x + dx*0.6 + 0.09, 0.45), (x + dx + 0.07, 0.8),
               (x + dx - 0.14, 0.84), (x + dx - 0.07, 0.74), (x + dx*0.6 - 0.07, 0.42)]
        s.part(leg, c[0]*shade, texture=patches(s.rng, 6, 6, 0.2), color2=c[1]*shade, smooth=0.6)
    tail = r(-0.65, -0.2)
    s.part([(long, -0.2), (0.8, -0.3), (0.93, tail), (0.99, tail + 0.08), (0.95, -0.12), (long, -0.05)], c[0],
           smooth=0.8, texture=streaks(s.rng, 20))
    s.part([(-0.46, -0.3), (-0.05, -0.3), (long - 0.1, -0.3), (long + 0.13, -0.2), (long + 0.17, 0.14),
            (long - 0.12, 0.2), (0.15, 0.26), (-0.15, 0.38), (-0.46, 0.3), (-0.55, 0)], c[0], smooth=1, round=0.35,
            **coat)
    s.part([(-0.62, -0.5), (-0.28, -0.62), (-0.05, -0.28), (-0.2, 0.12), (-0.52, 0.2)], c[0], smooth=0.7, contour=False,
           **coat)
    with s.inside(0.45, (-0.55, -0.52 + r(-0.06, 0.1))): spaniel_head(s, c, coat)


def cassette_player(s, c):
    "A box with a cassette behind a window, keys and loudspeakers."
    r = s.rng.uniform
    tall = r(0.4, 0.62)
    if s.rng.random() < 0.5:
        s.tube([(-0.7, -tall), (-0.68, -tall - 0.28), (0.68, -tall - 0.28), (0.7, -tall)], 0.1, c[1], smooth=0.2)
    elif s.rng.random() < 0.5: s.line([(0.75, -tall), (r(0.3, 1), -1.1)], (0.75, 0.75, 0.78), 0.035)
    s.box(-0.95, -tall, 0.95, tall, c[0], corner=r(0, 0.15))
    speakers = s.rng.random() < 0.75
    wide = 0.36 if speakers else r(0.5, 0.7)
    if speakers:
        for x in (-0.65, 0.65):
            s.disc((x, r(0.0, 0.1)), 0.27, c[1]*0.8, texture=dots(r(9, 13), 0.3), color2=c[1]*0.25)
            s.disc((x, 0.05), 0.09, c[2]*0.8, round=0.6)
    top = -tall + 0.12
    s.box(-wide, top, wide, top + 0.46, (0.12, 0.12, 0.14))
    s.box(-wide*0.85, top + 0.06, wide*0.85, top + 0.4, c[2], texture=stripes(5, 90, 0.1))
    s.box(-wide*0.55, top + 0.14, wide*0.55, top + 0.32, (0.2, 0.19, 0.2), contour=False)
    for x in (-0.3, 0.3):
        s.disc((x*wide, top + 0.23), 0.075, (0.93, 0.92, 0.9), contour=False)
        for a in np.arange(0, 360, 60) + r(0, 60):  # the teeth that turn the reel
            s.line([arc((x*wide, top + 0.23), (k, k), a, a, 1)[0] for k in (0.055, 0.075)], (0.1, 0.1, 0.1), 0.03)
    n = s.rng.integers(4, 7)
    edges = np.linspace(-wide*0.95, wide*0.95, n + 1)
    for x0, x1 in zip(edges, edges[1:]):
        s.box(x0 + 0.015, tall - 0.22, x1 - 0.015, tall - 0.06, c[1] if s.rng.random() < 0.85 else c[2])


def chain_saw(s, c):
    "A motor with two handles and a long bar with a toothed chain round it."
    r = s.rng.uniform
    thick, tip = r(0.1, 0.15), -0.97
    bar = [(0.2, 0.12 - thick), *arc((tip + thick, 0.12), (thick, thick), 270, 90, 10), (0.2, 0.12 + thick)]
    way = spline(bar, closed=False, k=4, tension=0)
    steps = np.cumsum(np.r_[0, np.hypot(*np.diff(way, axis=0).T)])
    for d in np.arange(0.03, steps[-1], r(0.08, 0.11)):  # the teeth
        x, y = np.interp(d, steps, way[:, 0]), np.interp(d, steps, way[:, 1])
        out = np.array([x, y - 0.12]) - [np.clip(x, tip + thick, 1), 0]
        out = out/(np.hypot(*out) + 1e-6)
        along = np.array([out[1], -out[0]])
        tooth = np.array([-along, along, along + 1.6*out])*0.035 + [x, y]
        s.part(tooth, (0.25, 0.25, 0.27), contour=False)
    s.part(bar, (0.72, 0.73, 0.75), texture=stripes(3, 0, 0.1))
    s.line(way, (0.2, 0.2, 0.22), 0.035)
    s.tube([(0.25, -0.1), (0.12, -0.5), (0.4, -0.62), (0.62, -0.2)], 0.1, (0.2, 0.2, 0.22))
    s.tube([(0.6, -0.22), (0.95, -0.15), (0.98, 0.2), (0.7, 0.34)], 0.13, c[1]*0.6)
    s.part([(0.08, -0.18), (0.3, -0.32), (0.62, -0.3), (0.76, -0.1), (0.74, 0.36), (0.5, 0.42), (0.06, 0.36)], c[0],
           smooth=r(0, 0.5), round=0.3)
    s.disc((0.38, 0.1), 0.19, c[1], texture=stripes(r(5, 8), r(0, 180), 0.4))
    s.disc((0.38, 0.1), 0.07, c[2])
    for y in np.linspace(-0.14, 0.0, 3): s.line([(0.54, y), (0.7, y)], (0.08, 0.08, 0.08), 0.03)


def church(s, c):
    "A tower with a spire and a cross, a nave with pointed windows."
    r = s.rng.uniform
    wall = dict(texture=bricks(r(8, 13), 0.16), color2=c[0]*r(0.6, 0.85))
    roof = dict(texture=scales(r(8, 12)), color2=c[1]*0.65)
    ground, eaves, half = 0.85, r(0.05, 0.25), r(0.17, 0.23)
    tower = r(-0.5, -0.25) if s.rng.random() < 0.7 else 0.25
    top = r(-0.35, -0.15)
    side = 1 if tower < 0 else -0.45
    x0, x1 = (tower, 0.92) if tower < 0 else (-0.7, 0.9)
    s.box(x0, eaves, x1, ground, c[0], **wall)
    s.part([(x0 - 0.04, eaves), (x0 + 0.15, eaves - r(0.28, 0.42)), (x1 - 0.15, eaves - 0.35), (x1 + 0.05, eaves)],
           c[1], **roof)
    s.box(tower - half, top, tower + half, ground, c[0], **wall)
    peak = r(-0.9, -0.75)
    s.part([(tower - half - 0.04, top), (tower, peak), (tower + half + 0.04, top)], c[1], **roof)
    s.line([(tower, peak + 0.02), (tower, peak - 0.2)], (0.9, 0.8, 0.4), 0.035)
    s.line([(tower - 0.07, peak - 0.12), (tower + 0.07, peak - 0.12)], (0.9, 0.8, 0.4), 0.035)
    pane = (0.14, 0.16, 0.24) if s.rng.random() < 0.6 else (0.98, 0.9, 0.55)

    def window(x, y, w, h):
        pointed = spline([(x - w, y), (x, y - 1.6*w), (x + w, y)], closed=False, tension=0.5)
        s.part([(x - w, y + h), *pointed, (x + w, y + h)], pane)
        s.line([(x, y - w), (x, y + h)], c[0]*0.7, 0.02)

    for x in np.linspace(tower + half + 0.18, x1 - 0.14, s.rng.integers(2, 4)): window(x, eaves + 0.2, 0.07, 0.26)
    window(tower, top + 0.22, 0.06, 0.16)
    door = [(tower - 0.1, ground), *arc((tower, ground - 0.22), (0.1, 0.14), 180, 360), (tower + 0.1, ground)]
    s.part(door, c[2]*0.6, texture=stripes(14))
    if s.rng.random() < 0.4: s.disc((tower, top + 0.5), 0.075, (0.95, 0.94, 0.9))


def french_horn(s, c):
    "Brass tubing in circles and a wide bell."
    r = s.rng.uniform
    brass = c[0] if s.rng.random() < 0.65 else np.array([r(0.75, 0.95), r(0.55, 0.72), r(0.15, 0.35)])
    bell_at = np.array([0.42, 0.5])
    ring = r(0.46, 0.54)
    s.tube(arc((-0.1, -0.1), (ring, ring), r(20, 60), 330, 40), r(0.1, 0.13), brass, smooth=0)
    s.tube(arc((-0.07, -0.08), (ring*0.72, ring*0.7), 100, 400, 36), 0.085, brass, smooth=0)
    s.tube(arc((-0.12, -0.06), (ring*0.45, ring*0.42), 0, 320, 30), 0.075, brass, smooth=0)
    s.tube([(-0.4, -0.5), (-0.6, -0.75), (-0.9, r(-0.95, -0.75))], 0.055, brass)
    s.disc((-0.93, -0.88), 0.06, (0.85, 0.85, 0.88))
    for i, x in enumerate((-0.22, -0.06, 0.1)):  # the valves
        s.box(x - 0.065, -0.2, x + 0.065, 0.16, brass*0.9, round=0.6)
        s.disc((x, -0.24), (0.07, 0.04), (0.88, 0.88, 0.9))
    wide = r(0.3, 0.42)
    s.part([(-0.12, 0.42), (0.02, 0.3), bell_at + [-0.05, -wide], bell_at + [wide, 0], bell_at + [0, wide],
            bell_at + [-wide, 0.1]], brass, smooth=0.7, round=0.3)
    s.part(arc(bell_at, (wide, wide*1.05), 0, 360, 24), brass*1.05, round=0.5)
    s.part(arc(bell_at + [0.02, 0.02], (wide*0.8, wide*0.84), 0, 360, 24), brass*0.6, round=0.4, contour=False)
    s.part(arc(bell_at - [0.05, 0.05], (wide*0.35, wide*0.38), 0, 360, 20), brass*0.2, contour=False)


def wheel(s, at, r, hub):
    s.disc(at, r, (0.1, 0.1, 0.11))
    s.disc(at, r*0.55, hub, round=0.5)
    s.disc(at, r*0.16, (0.2, 0.2, 0.2), contour=False)


def garbage_truck(s, c):
    "A cab, a ribbed container, a hopper that opens at the back, wheels."
    r = s.rng.uniform
    floor, roof, cab = 0.42, r(-0.62, -0.45), r(-0.52, -0.4)
    s.box(-0.95, floor - 0.08, 0.85, floor + 0.06, (0.2, 0.2, 0.22))
    back = r(0.86, 1.0)
    s.part([(cab + 0.06, roof), (0.55, roof), (back, roof + 0.28), (back, floor - 0.05), (cab + 0.06, floor)], c[0],
           texture=stripes(r(4, 7), 0, 0.16), color2=c[0]*0.6)
    s.part([(0.58, roof + 0.06), (back, roof + 0.3), (back, floor), (0.68, floor), (0.6, 0.1)], c[1],
           texture=stripes(6, 55, 0.3))
    s.part([(0.75, -0.05), (back, -0.1), (back, floor - 0.1), (0.8, floor - 0.12)], (0.08, 0.08, 0.09))
    s.line([(0.3, roof + 0.02), (0.8, floor - 0.05)], (0.8, 0.8, 0.82), 0.05)
    if s.rng.random() < 0.6: s.box(cab + 0.2, r(-0.2, -0.1), 0.45, 0.12, c[2], texture=stripes(3, 90, 0.2))
    top = r(-0.35, -0.2)
    s.part([(-0.97, floor), (-0.97, 0.05), (-0.86, top), (cab, top), (cab, floor)],
           c[2] if s.rng.random() < 0.5 else c[0], smooth=0.15)
    s.part([(-0.9, 0.04), (-0.82, top + 0.08), (cab - 0.08, top + 0.08), (cab - 0.08, 0.04)], (0.65, 0.8, 0.9))
    s.box(-0.99, floor - 0.14, -0.9, floor - 0.05, (1, 0.95, 0.6))
    if s.rng.random() < 0.6: s.disc((cab - 0.2, top - 0.03), (0.07, 0.05), (1, 0.6, 0.1))
    hub = c[1]
    for x in (-0.72, 0.22, 0.55) if s.rng.random() < 0.6 else (-0.72, 0.42):
        wheel(s, (x, floor + 0.1), r(0.17, 0.2), hub)


def gas_pump(s, c):
    "An upright cabinet with a dial, a hose in a loop and a nozzle at its side."
    r = s.rng.uniform
    half, top = r(0.3, 0.38), r(-0.75, -0.55)
    s.box(-half - 0.1, 0.82, half + 0.1, 0.95, (0.5, 0.5, 0.5))
    side = half + 0.02
    s.tube([(side, 0.45), (side + 0.3, r(0.6, 0.85)), (side + 0.42, 0.1), (side + 0.16, -0.3)], 0.07,
           (0.12, 0.12, 0.13))
    s.part([(side - 0.02, -0.36), (side + 0.2, -0.42), (side + 0.24, -0.26), (side + 0.12, -0.22), (side + 0.14, -0.05),
            (side + 0.02, -0.05)], c[2], smooth=0.2)
    if s.rng.random() < 0.5:
        s.disc((0, top - 0.14), 0.2, c[2], round=0.5)
        s.disc((0, top - 0.14), 0.11, c[1], contour=False)
    s.box(-half, top, half, 0.85, c[0], corner=r(0, 0.16), round=0.2)
    s.box(-half*0.8, top + 0.12, half*0.8, top + 0.5, (0.92, 0.93, 0.9))
    if s.rng.random() < 0.5:  # figures, or a dial
        for y in (top + 0.18, top + 0.34):
            s.box(-half*0.65, y, half*0.65, y + 0.11, (0.15, 0.16, 0.16), texture=stripes(11, 0, 0.4),
                  color2=(0.9, 0.75, 0.3))
    else:
        s.disc((0, top + 0.31), 0.16, (0.98, 0.98, 0.96))
        for a in range(0, 360, 45): s.line(arc((0, top + 0.31), (0.13, 0.13), a, a + 4, 2), (0.1, 0.1, 0.1), 0.025)
        a = r(0, 360)
        s.line([(0, top + 0.31), tuple(arc((0, top + 0.31), (0.12, 0.12), a, a, 1)[0])], (0.8, 0.1, 0.1), 0.03)
    y = r(0.05, 0.2)
    s.box(-half, y, half, y + r(0.1, 0.3), c[1], contour=False)
    if s.rng.random() < 0.6: s.box(-half*0.75, 0.5, half*0.75, 0.78, c[0]*0.85, texture=stripes(9, 90, 0.3))


def golf_ball(s, c):
    "A dimpled ball, now and then on its tee or beside a club."
    r = s.rng.uniform
    color = c[0]*0.4 + 0.55 if s.rng.random() < 0.5 else c[0]
    if s.rng.random() < 0.4:  # on a tee
        s.part([(-0.16, 0.5), (0.16, 0.5), (0.05, 0.65), (0.03, 1.15), (-0.03, 1.15), (-0.05, 0.65)], c[1])
    elif s.rng.random() < 0.5:
        s.line([(0.95, 0.6), (0.6, -1.3)], (0.7, 0.7, 0.72), 0.07)
        s.part([(0.62, 0.3), (1.05, 0.35), (1.1, 0.72), (0.55, 0.75)], (0.6, 0.61, 0.63), smooth=0.4,
               texture=stripes(8, 85, 0.2))
    else: s.shadow((0.05, 0.58), (0.7, 0.16))
    radius, k, turn = 0.6, r(4.5, 6.5), r(0, 2*np.pi)

    def dimples(u, v):
        "Dots on a sphere: the lattice is stretched toward the rim, where the surface turns away."
        d = np.clip(np.hypot(u, v)/radius, 1e-3, 0.999)
        out = np.arcsin(d)/d
        a, b = u*out/radius, v*out/radius
        return dots(k, 0.34)(a*np.cos(turn) - b*np.sin(turn), a*np.sin(turn) + b*np.cos(turn))

    s.disc((0, 0), radius, color, texture=dimples, color2=color*r(0.6, 0.75), round=0.9)
    if s.rng.random() < 0.4:  # the maker's name, too small to read
        s.line([(-0.18, r(-0.2, 0.2)), (0.18, r(-0.2, 0.2))], c[2]*0.6, 0.05)


def parachute(s, c):
    "A canopy in gores, lines, and somebody hanging from them."
    r = s.rng.uniform
    person, n = np.array([r(-0.12, 0.12), 0.8]), 8
    x = np.linspace(-0.95, 0.95, n + 1)  # where the seams end at the rim
    if s.rng.random() < 0.3:  # a wing
        bend, deep = r(0.1, 0.25), r(0.2, 0.3)
        top = np.stack([x, -0.78 + (0.33 + bend)*x**2], 1)
        rim = top*[0.97, 1] + [0, deep]
        gores = [[top[i], top[i+1], rim[i+1], rim[i]] for i in range(n)]
    else:  # a dome, whose seams meet at its top
        high = r(0.55, 0.85)
        rim = np.stack([x*0.97, -0.05 - 0.1*x**2], 1)
        seams = [spline([(u*0.97, v), (0.8*np.sin(1.5*u), -0.15 - 0.68*high*np.cos(u)), (0, -0.15 - high)],
                        closed=False) for u, v in zip(x, rim[:, 1])]
        gores = [[*seams[i], *seams[i+1][::-1], (rim[i] + rim[i+1])/2 - [0, 0.08]] for i in range(n)]
    for end in rim: s.line([end, person - [0, 0.05]], c[2]*0.35, 0.016)
    colors = [c[0], c[1]] if s.rng.random() < 0.75 else [c[0], c[0]*0.8, c[1], c[2]]
    for i, gore in enumerate(gores): s.part(gore, colors[i % len(colors)])
    s.part([person + [0, 0.02], person + [0.01, 0.22]], c[2]*0.6, width=0.09)
    s.disc(person - [0, 0.06], 0.05, (0.9, 0.72, 0.58))
    for dx in (-0.06, 0.07): s.line([person + [0, 0.2], person + [dx, 0.36]], c[2]*0.4, 0.045)


OBJECTS = {  # by WordNet id, as in Imagenette
    'n01440764': tench, 'n02102040': springer, 'n02979186': cassette_player, 'n03000684': chain_saw,
    'n03028079': church, 'n03394916': french_horn, 'n03417042': garbage_truck, 'n03425413': gas_pump,
    'n03445777': golf_ball, 'n03888257': parachute}


def compose(
    rng:np.random.Generator,
    draw,              # draws the thing: function of (Scene, list of three colors)
    size=(0.75, 1.1),  # bounds of its size, in halves of the shorter side
    turn:float=9.,     # standard deviation of its angle, in degrees
):                     # an RGB image
    "A thing somewhere in a scene, in random colors and light."
    s = Scene(rng)
    s.background()
    k = rng.uniform(*size)
    room = max(0.1, 1.05 - k)

    def pose(k, at):
        s.place(k, rng.normal(0, turn), at, flip=rng.random() < 0.5, squeeze=rng.uniform(0.82, 1.08),
                shear=rng.normal(0, 0.08))

    if rng.random() < 0.1:  # another of its kind farther away
        pose(0.5*k, rng.uniform(-0.9, 0.9, 2))
        draw(s, palette(rng, 3, s.ground))
    pose(k, rng.uniform(-room, room, 2)*[s.w/min(s.w, s.h), s.h/min(s.w, s.h)])
    draw(s, palette(rng, 3, s.ground))
    s.occlude()
    return s.picture()


def save_jpeg(im, path, quality=60): im.save(path, 'JPEG', quality=quality, subsampling='4:2:0', optimize=False)


def photograph(wnid, i, part, seed=3):
    "The name of the file with number `i` of a class and part (0: train, 1: val), and the image in it."
    c = list(OBJECTS).index(wnid)
    im = compose(rng_for(seed, part, c, i), OBJECTS[wnid])
    if part == 0 and i % 100 == 7: im = im.convert('L')  # real Imagenette has some gray files too
    return (f'ILSVRC2012_val_{10*i + c:08}.JPEG' if part else f'{wnid}_{i}.JPEG'), im


def make_imagenette(
    folder,          # gets imagenette/{train,val}/<wnid>/*.JPEG
    n_train:int=100, # images of each class
    n_val:int=30,
):
    for wnid in OBJECTS:
        for part, (split, n) in enumerate((('train', n_train), ('val', n_val))):
            place = folder/'imagenette'/split/wnid
            place.mkdir(parents=True)
            for i in range(n):
                name, im = photograph(wnid, i, part)
                save_jpeg(im, place/name)
