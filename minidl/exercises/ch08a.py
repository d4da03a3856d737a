"Checks of the exercises of chapter 08a."
import random

import torch
import torch.nn.functional as F

from .core import Wrong, exercise, expect, same, same_grads


def augment():
    import minidl.augment
    return minidl.augment


@exercise('08a.1', hints=[
    'Two generators in the same state give the same numbers. What do `getstate` and `setstate` of `random.Random` do?',
    'Put the generator back before each image, and leave it as the last image has left it: the next transform '
    'must not be dealt the same numbers again.',
    'Without chance there is no state to keep; hand `None` on.'])
def transform_alike(f):
    "One draw for several images."
    from PIL import Image

    from minidl.data import RandomFlip, to_tensor
    a = augment()
    def bands(imgs, what, n):
        if not isinstance(imgs, list): raise Wrong(f'{what}: it should give a list, and gives a {type(imgs).__name__}')
        if len(imgs) != n: raise Wrong(f'{what}: it gives {len(imgs)} images for {n}')
        return [to_tensor(img) for img in imgs]
    img = Image.fromarray(torch.randint(0, 256, (40, 60, 3), dtype=torch.uint8).numpy())
    mask = img.getchannel('G')
    tfm = a.RandomResizedCrop(16, scale=(0.1, 0.9))
    for seed in range(5):
        got = bands(f([img, mask], tfm, random.Random(seed)), 'a picture and its mask', 2)
        if not torch.equal(got[0][1:2], got[1]):
            raise Wrong('a picture and its mask: they are cropped at different places')
        same(got[0], to_tensor(tfm(img, random.Random(seed))), 'a picture and its mask', tol=0)
    yield 'a picture and its mask'
    got = bands(f([img, mask, img], a.PerspectiveWarp(0.5), random.Random(1)), 'three images', 3)
    want = to_tensor(a.PerspectiveWarp(0.5)(img, random.Random(1)))
    for x in got: same(x, want if len(x) == 3 else want[1:2], 'three images')
    yield 'three images'
    rng, once = random.Random(3), random.Random(3)
    f([img, mask], tfm, rng), tfm(img, once)
    yield expect(rng.random() == once.random(), 'the generator goes on as after one image',
                 'afterwards the generator is not where one image would have left it')
    rng = random.Random(4)
    both = [bands(f([img, mask], RandomFlip(), rng), 'twenty pairs', 2) for _ in range(20)]
    flipped = sum(torch.equal(x, to_tensor(img).flip(-1)) for x, _ in both)
    yield expect(0 < flipped < 20 and all(torch.equal(x[1:2], y) for x, y in both), 'twenty pairs, one generator',
                 'of twenty pairs from one generator all or none are mirrored, or not both of a pair')
    heard = []
    def listens(img, rng=random):
        heard.append(rng)
        return img
    bands(f([img, mask], listens, None), 'without chance', 2)
    yield expect(heard == [None, None], 'without chance',
                 'without chance the transform should be handed None each time')


@exercise('08a.2', hints=[
    'The gray picture is the mean over the channels, and it keeps an axis for them. From there to the picture itself '
    'there is a straight line.',
    'A factor for each picture has to stand along the axis of the batch: `view` it to four axes.',
    'A factor may be a number or a tensor, and of another dtype than the pictures. `torch.as_tensor` takes both.'])
def saturation_batch(f):
    "More or less color for a batch."
    def ref(xb, factor):
        gray = xb.mean(1, keepdim=True)
        return gray + torch.as_tensor(factor).to(xb.dtype).view(-1, 1, 1, 1)*(xb - gray)
    xb = torch.rand(5, 3, 4, 5)
    yield same(f(xb, 1.), xb, 'a factor of 1')
    yield same(f(xb, 0), ref(xb, 0), 'a factor of 0')
    yield same(f(xb, 0.3), ref(xb, 0.3), 'less color')
    yield same(f(xb, 1.7), ref(xb, 1.7), 'more color')
    factors = torch.tensor([0., 0.5, 1., 1.5, 2.])
    yield same(f(xb, factors), ref(xb, factors), 'a factor for each picture')
    one = torch.rand(1, 3, 6, 2)
    yield same(f(one, torch.tensor([0.4])), ref(one, 0.4), 'one picture')
    half = xb.half()
    yield same(f(half, factors), ref(half, factors), 'pictures in half precision')
    yield same_grads(f, ref, xb, factors, what='gradients')


@exercise('08a.3', hints=[
    'The matrices say where a pixel of the new picture is read from. A point of the old picture asks the question '
    'the other way around.',
    'Append a 1 to each point, as the check of `homography` does, and mind on which side the matrix stands.',
    'A homography ends with a division by the third number; for the others it is 1 and does no harm.'])
def move_points(f):
    "Where points of a picture are after a transform."
    a = augment()
    affine_batch, flip_mat, homography, rotate_mat = a.affine_batch, a.flip_mat, a.homography, a.rotate_mat
    CORNERS, shear_mat, shift_mat, zoom_mat = a.CORNERS, a.shear_mat, a.shift_mat, a.zoom_mat
    def ref(points, mats):
        uvk = F.pad(points.double(), (0, 1), value=1.) @ torch.linalg.inv(mats.double()).mT
        return (uvk[..., :2]/uvk[..., 2:]).float()
    points = torch.rand(3, 7, 2)*1.6 - 0.8
    def case(mats, what): return same(f(points, mats), ref(points, mats), what, tol=1e-4)
    yield case(torch.eye(3).expand(3, 3, 3), 'matrices that do nothing')
    yield case(flip_mat([1, 0, 1]), 'mirrored')
    yield case(shift_mat([0.1, -0.2, 0.3], 0.15), 'shifted')
    yield case(zoom_mat([2., 0.5, 1.2]) @ rotate_mat([20., -50., 90.], 1.5), 'enlarged and turned')
    inside = 1 - 0.4*torch.rand(3, 4, 2)
    yield case(homography(CORNERS*inside, CORNERS).float() @ shear_mat([5., 10., -20.]), 'tilted')
    yield case(rotate_mat(30., 0.7) @ zoom_mat(1.3), 'one matrix for all')
    mats = rotate_mat([25., -25.], 1.5) @ homography(CORNERS*inside[:2], CORNERS).float() @ zoom_mat([0.8, 0.9])
    dots = torch.zeros(2, 1, 40, 60)
    dots[0, 0, 10:13, 20:23] = dots[1, 0, 22:25, 35:38] = 1.
    spots = torch.tensor([[[21.5, 11.5]], [[36.5, 23.5]]])/torch.tensor([60., 40.])*2 - 1      # their middles
    after = affine_batch(dots, mats, padding_mode='zeros')[:, 0]
    grid = torch.stack(torch.meshgrid(torch.arange(60) + 0.5, torch.arange(40) + 0.5, indexing='xy'), -1)
    found = (after[..., None]*grid).sum((1, 2))/after.sum((1, 2))[:, None]                     # centers of mass
    got = (f(spots, mats)[:, 0] + 1)/2*torch.tensor([60., 40.])
    yield expect((got - found).norm(dim=1).max() < 0.5, 'where `affine_batch` puts a dot',
                 'a dot that `affine_batch` moves ends elsewhere')


@exercise('08a.4', hints=[
    'A matrix of the chapter takes a point in units from -1 to 1 to another one. Pillow hands you a point in pixels '
    'and wants one back in pixels.',
    'So three matrices in a row: from pixels to units, the given one, from units to pixels. The first and the last '
    'undo each other.',
    'In x, -1 is pixel 0 and 1 is pixel w, since they are edges. Pillow takes eight numbers and believes that the '
    'ninth is 1.'])
def mats_to_pixels(f):
    "Matrices in units, for Pillow, which counts pixels."
    a = augment()
    CORNERS, flip_mat, homography = a.CORNERS, a.flip_mat, a.homography
    rotate_mat, shift_mat, zoom_mat = a.rotate_mat, a.shift_mat, a.zoom_mat
    def apply(mats, points):   # (n, 3, 3), (k, 2) -> (n, k, 2)
        uvk = F.pad(points.double(), (0, 1), value=1.) @ mats.double().mT
        return uvk[..., :2]/uvk[..., 2:]
    def case(mats, h, w, what):
        got = f(mats, h, w)
        same(got, torch.zeros(len(mats), 3, 3), what, tol=1e9, dtype=False)   # shape, no NaN
        half = torch.tensor([w, h], dtype=torch.float64)/2
        points = torch.tensor([[0., 0.], [w, 0.], [w/3, h/4], [w, h], [1., h/2]])
        want = (apply(mats, points/half - 1) + 1)*half
        off = (apply(got, points) - want).norm(dim=-1)
        if not off.max() < 0.05:
            place = points[off.amax(0).argmax()].round().int().tolist()
            raise Wrong(f'{what}: at pixel {tuple(place)} (x, y) it reads {off.max():.3g} pixels off')
        return what
    yield case(torch.eye(3).expand(2, 3, 3), 30, 30, 'matrices that do nothing')
    yield case(shift_mat([0.1, -0.4], 0.25), 40, 40, 'a shift, in a square picture')
    yield case(flip_mat([True]) @ zoom_mat([1.5]), 40, 40, 'mirrored and enlarged')
    yield case(shift_mat([0.1, -0.4], 0.25), 30, 70, 'a picture that is not square')
    yield case(rotate_mat([20., -70., 5.], 70/30), 30, 70, 'turned')
    inside = 1 - 0.4*torch.rand(3, 4, 2)
    tilted = homography(CORNERS*inside, CORNERS)
    yield case(tilted.float(), 60, 40, 'tilted')
    last = f(tilted.float(), 60, 40)[:, 2, 2]
    yield expect((last - 1).abs().max() < 1e-4, 'the ninth number is 1',
                 'Pillow takes eight numbers of a matrix and takes the ninth to be 1; here it is not')
