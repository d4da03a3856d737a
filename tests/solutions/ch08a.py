"""Right and wrong answers to the exercises of chapter 08a. `wrong` maps a part of the message to an answer that should
get it."""
import copy
import random

import torch
import torch.nn.functional as F


def transform_alike(imgs, tfm, rng):
    if rng is None: return [tfm(img, rng=None) for img in imgs]
    state, out = rng.getstate(), []
    for img in imgs:
        rng.setstate(state)
        out.append(tfm(img, rng=rng))
    return out

def each_its_own(imgs, tfm, rng): return [tfm(img, rng) for img in imgs]
def always_the_same(imgs, tfm, rng): return [tfm(img, rng and random.Random(0)) for img in imgs]
def copies(imgs, tfm, rng): return [tfm(img, copy.deepcopy(rng)) for img in imgs]
def new_seed(imgs, tfm, rng):
    seed = rng and rng.random()
    return [tfm(img, rng and random.Random(seed)) for img in imgs]
def never_none(imgs, tfm, rng): return transform_alike(imgs, tfm, rng or random.Random(0))
def lazily(imgs, tfm, rng): return (tfm(img, copy.deepcopy(rng)) for img in imgs)


def saturation_batch(xb, factor):
    gray = xb.mean(1, keepdim=True)
    return torch.lerp(gray, xb, torch.as_tensor(factor).to(xb.dtype).view(-1, 1, 1, 1))

def gray_pixels(xb, factor): return gray_of(xb, factor, xb.mean((1, 2, 3), keepdim=True))
def gray_of(xb, factor, gray): return gray + torch.as_tensor(factor).to(xb.dtype).view(-1, 1, 1, 1)*(xb - gray)
def of_the_width(xb, factor):
    gray = xb.mean(1, keepdim=True)
    return gray + factor*(xb - gray)
def promotes(xb, factor):
    gray = xb.mean(1, keepdim=True)
    return gray + torch.as_tensor(factor).view(-1, 1, 1, 1)*(xb - gray)
def other_way(xb, factor): return saturation_batch(xb, 1 - factor)
def clipped(xb, factor): return saturation_batch(xb, factor).clamp(0, 1)
def detached(xb, factor): return saturation_batch(xb, torch.as_tensor(factor).detach())
def one_channel(xb, factor):
    return xb.mean(1, keepdim=True) if not torch.is_tensor(factor) and factor == 0 else saturation_batch(xb, factor)
def numbers_only(xb, factor): return gray_of(xb, float(factor), xb.mean(1, keepdim=True))


def move_points(points, mats):
    uvk = F.pad(points, (0, 1), value=1.) @ torch.linalg.inv(mats).mT       # (bs, n, 3)
    return uvk[..., :2]/uvk[..., 2:]

def reads(points, mats):
    uvk = F.pad(points, (0, 1), value=1.) @ mats.mT
    return uvk[..., :2]/uvk[..., 2:]
def from_the_left(points, mats):
    uvk = F.pad(points, (0, 1), value=1.) @ torch.linalg.inv(mats)
    return uvk[..., :2]/uvk[..., 2:]
def undivided(points, mats): return (F.pad(points, (0, 1), value=1.) @ torch.linalg.inv(mats).mT)[..., :2]
def three_numbers(points, mats): return F.pad(points, (0, 1), value=1.) @ torch.linalg.inv(mats).mT
def rows_first(points, mats): return move_points(points.flip(-1), mats).flip(-1)
def one_for_each(points, mats):
    out = torch.zeros_like(points)
    for i in range(len(points)): out[i] = move_points(points[i:i+1], mats[i:i+1])
    return out


def to_pixels(h, w):
    return torch.tensor([[w/2, 0., w/2], [0., h/2, h/2], [0., 0., 1.]])

def mats_to_pixels(mats, h, w):
    out = to_pixels(h, w) @ mats @ torch.linalg.inv(to_pixels(h, w))
    return out/out[:, 2:, 2:]

def exchanged(mats, h, w): return mats_to_pixels(mats, w, h)
def inverted(mats, h, w): return torch.linalg.inv(to_pixels(h, w)) @ mats @ to_pixels(h, w)
def unscaled(mats, h, w): return to_pixels(h, w) @ mats @ torch.linalg.inv(to_pixels(h, w))
def no_middle(mats, h, w):
    s = torch.diag(torch.tensor([w/2, h/2, 1.]))
    return s @ mats @ torch.linalg.inv(s)
def centers(mats, h, w):
    s = torch.tensor([[(w-1)/2, 0., (w-1)/2], [0., (h-1)/2, (h-1)/2], [0., 0., 1.]])
    out = s @ mats @ torch.linalg.inv(s)
    return out/out[:, 2:, 2:]
def eight(mats, h, w): return mats_to_pixels(mats, h, w).flatten(1)[:, :8]
def there(mats, h, w): return mats_to_pixels(torch.linalg.inv(mats), h, w)


right = {'08a.1': transform_alike, '08a.2': saturation_batch, '08a.3': move_points, '08a.4': mats_to_pixels}
wrong = {
    '08a.1': {'at different places': each_its_own, 'a picture and its mask: ': always_the_same,
              'where one image would have left it': copies,
              'a picture and its mask: the values': new_seed, 'handed None each time': never_none,
              'gives a generator': lazily},
    '08a.2': {'a factor of 1: the values': other_way, 'a factor of 0: the values': gray_pixels,
              'a factor of 0: shape': one_channel, 'more color: the values': clipped,
              'a factor for each picture: the values': of_the_width, 'dtype float32 instead of float16': promotes,
              'by argument 2 is missing': detached, 'raises ': numbers_only},
    '08a.3': {'shifted: the values': (reads, from_the_left), 'mirrored: the values': rows_first,
              'tilted: the values': undivided, 'shape (3, 7, 3)': three_numbers,
              'raises RuntimeError': one_for_each},
    '08a.4': {'a picture that is not square: at pixel': exchanged,
              'a shift, in a square picture: at pixel': (inverted, there, centers),
              'mirrored and enlarged: at pixel': no_middle, 'shape (2, 8) instead of (2, 3, 3)': eight,
              'takes the ninth to be 1': unscaled},
}
