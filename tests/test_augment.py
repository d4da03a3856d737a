"Augmentation against Pillow itself, PyTorch's affine grids and arithmetic by hand (chapter 08a)."
import io
import json
import math
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from minidl.augment import (CORNERS, FILTERS, AffineBatch, Brightness, CenterCrop, Contrast, PerspectiveWarp,
                            RandomCrop, RandomDihedral, RandomResizedCrop, affine_batch, center_box,
                            crop_resize, dihedral, flip_mat, homography, light_batch, norm_imagenette, rotate_mat,
                            shear_mat, shift_mat, zoom_mat)
from minidl.data import ImageDataLoaders, ImageList, Normalize, RandomFlip, make_tfm, tfm_spec, to_tensor

ITEM = [RandomFlip(), RandomDihedral(), RandomCrop(20, 4), RandomCrop((9, 33)), RandomResizedCrop(24),
        RandomResizedCrop((10, 30), scale=(0.1, 0.2), ratio=(0.5, 3.)), PerspectiveWarp(0.4)]
FIXED = [CenterCrop(24), CenterCrop((10, 30), zoom=1.3, resample='lanczos')]
BATCH = [AffineBatch(30, (0.5, 2.), 0.2, 10, 0.3, 0.5, 0.9), Brightness(0.5), Contrast(0.5)]
ids = lambda fs: [repr(f)[:40] for f in fs]
each_item = pytest.mark.parametrize('tfm', ITEM, ids=ids(ITEM))
each_batch = pytest.mark.parametrize('tfm', BATCH, ids=ids(BATCH))
each_tfm = pytest.mark.parametrize('tfm', ITEM + FIXED + BATCH + [norm_imagenette],
                                   ids=ids(ITEM + FIXED + BATCH + ['norm']))
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')


def picture(width=60, height=45, mode='RGB', seed=0):
    "Smooth shapes and some noise."
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x/7 + k) + np.cos(y/(5 + k)) for k in range(3)]
    a = np.stack(waves, -1)*55 + 120 + np.random.default_rng(seed).normal(0, 8, (height, width, 3))
    return Image.fromarray(a.clip(0, 255).astype(np.uint8)).convert(mode)


def jpeg(img, **kwargs):
    file = io.BytesIO()
    img.save(file, 'JPEG', quality=95, **kwargs)
    return file


def pixels(img): return np.asarray(img).astype(float)
def gen(seed=0): return torch.Generator().manual_seed(seed)
def batch(n=5, c=3, h=20, w=28): return torch.rand(n, c, h, w, generator=gen())


# Chance

@each_item
def test_an_item_transform_is_a_function_of_the_image_and_the_chance(tfm):
    img = picture()
    draws = [tfm(img, random.Random(i)) for i in range(30)]
    for i, a in enumerate(draws): assert a.tobytes() == tfm(img, random.Random(i)).tobytes()
    assert len({a.tobytes() for a in draws}) >= 2
    assert img.tobytes() == picture().tobytes()      # what came in was not changed


@each_item
def test_no_chance_gives_always_the_same_and_draws_nothing(tfm):
    random.seed(3)
    state = random.getstate()
    results = {tfm(picture(), None).tobytes() for _ in range(5)}
    assert len(results) == 1 and random.getstate() == state


@each_item
def test_a_bare_call_acts_by_chance_and_follows_the_global_seed(tfm):
    def draws():
        random.seed(1)
        return [tfm(picture()).tobytes() for _ in range(20)]
    assert draws() == draws() and len(set(draws())) > 1


@each_item
def test_a_given_chance_leaves_global_generators_alone(tfm):
    states = lambda: (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())
    before = states()
    tfm(picture(), random.Random(0))
    assert states() == before


@each_batch
def test_a_batch_transform_is_a_function_of_the_batch_and_the_generator(tfm):
    xb, state = batch(40), torch.get_rng_state()
    kept = xb.clone()
    a, b, other = tfm(xb, gen(1)), tfm(xb, gen(1)), tfm(xb, gen(2))
    assert torch.equal(a, b) and not torch.equal(a, other) and torch.equal(xb, kept)
    assert torch.equal(torch.get_rng_state(), state)
    assert tfm(xb, None) is xb
    torch.manual_seed(5)
    c = tfm(xb)
    torch.manual_seed(5)
    assert torch.equal(c, tfm(xb)) and not torch.equal(c, tfm(xb))


@each_batch
def test_each_image_of_a_batch_has_its_own_chance(tfm):
    same = batch(1).expand(50, -1, -1, -1)
    out = tfm(same, gen())
    assert len({o.numpy().tobytes() for o in out}) > 20
    assert torch.isfinite(out).all() and out.min() >= 0 and out.max() <= 1


@each_tfm
def test_transforms_pickle_compare_and_come_back_from_json(tfm):
    assert pickle.loads(pickle.dumps(tfm)) == tfm
    made = make_tfm(json.loads(json.dumps(tfm_spec(tfm))))
    assert type(made) is type(tfm)
    if not isinstance(tfm, Normalize): assert made == tfm
    assert type(tfm).__name__ in repr(tfm)


def test_with_p_0_only_the_flip_remains():
    out = AffineBatch(30, (0.5, 2.), 0.2, 10, 0.3, flip=0., p=0.).mats(9, 1.5, gen())
    torch.testing.assert_close(out, torch.eye(3).expand(9, 3, 3))


def test_the_chance_of_one_setting_does_not_move_the_others():
    a, b = AffineBatch(warp=0., p=1.).mats(9, 1., gen()), AffineBatch(warp=0., flip=1., p=1.).mats(9, 1., gen())
    torch.testing.assert_close(flip_mat(True) @ a, b)
    none = AffineBatch(0, (1, 1), warp=0).mats(9, 1., gen())
    torch.testing.assert_close(none, torch.eye(3).expand(9, 3, 3))


def test_a_default_device_does_not_disturb():
    xb, img = batch(4), picture()
    with torch.device('meta'):      # what is made without naming a device would have no numbers
        got = [tfm(xb, gen()) for tfm in BATCH] + [to_tensor(PerspectiveWarp()(img, random.Random(0)))]
    want = [tfm(xb, gen()) for tfm in BATCH] + [to_tensor(PerspectiveWarp()(img, random.Random(0)))]
    for a, b in zip(got, want): assert torch.equal(a, b)


# Sizes and modes

@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('size', [(1, 1), (2, 1), (1, 50), (400, 3), (3, 400), (24, 24), (700, 500)])
def test_every_shape_comes_out_at_the_size_asked_for(size, mode):
    img = Image.new(mode, size, 77 if mode == 'L' else (77, 77, 77))
    for tfm, (h, w) in [(CenterCrop(24), (24, 24)), (CenterCrop((10, 30), 1.5), (10, 30)),
                        (RandomCrop(24, 3), (24, 24)),
                        (RandomResizedCrop(24), (24, 24)), (RandomResizedCrop([10, 30]), (10, 30))]:
        for rng in (None, random.Random(0), random.Random(1)):
            out = tfm(img, rng) if not isinstance(tfm, CenterCrop) else tfm(img)
            assert out.size == (w, h) and out.mode == mode
            if not (isinstance(tfm, RandomCrop)): assert set(np.asarray(out).ravel()) == {77}
    for rng in (None, random.Random(0)): assert PerspectiveWarp()(img, rng).size == size


def test_black_padding_is_the_only_thing_a_random_crop_adds():
    img = Image.new('L', (20, 20), 200)
    for mode in 'reflection', 'border':
        for i in range(9): assert set(np.asarray(RandomCrop(20, 5, mode)(img, random.Random(i))).ravel()) == {200}
    seen = {v for i in range(9) for v in np.asarray(RandomCrop(20, 5, 'zeros')(img, random.Random(i))).ravel()}
    assert seen == {0, 200}


def test_a_random_crop_holds_the_pixels_of_the_picture_and_reaches_every_place():
    img = Image.fromarray(np.arange(12*10, dtype=np.uint8).reshape(10, 12))
    places = set()
    for i in range(600):
        a = np.asarray(RandomCrop((8, 9))(img, random.Random(i)))
        y, x = divmod(int(a[0, 0]), 12)
        assert (a == np.asarray(img)[y:y+8, x:x+9]).all()
        places.add((y, x))
    assert places == {(y, x) for y in range(3) for x in range(4)}
    assert np.asarray(RandomCrop((8, 9))(img, None))[0, 0] == 1*12 + 1


def test_palettes_and_bilevel_images_are_interpolated_in_color():
    img = picture().quantize(64)
    a, b = CenterCrop(24)(img), CenterCrop(24)(img.convert('RGB'))
    assert a.mode == 'RGB' and a.tobytes() == b.tobytes()
    assert CenterCrop(24)(picture(mode='1')).mode == 'RGB'


@pytest.mark.parametrize('mode', ['CMYK', 'HSV', 'YCbCr', 'LAB', 'RGBX'])
@pytest.mark.parametrize('tfm', [RandomCrop(24, padding=2), RandomResizedCrop(24), CenterCrop(24)], ids=str)
def test_colors_of_other_kinds_become_rgb_and_stay_the_same_colors(mode, tfm):
    red = Image.new('RGB', (24, 24), (200, 30, 30))
    if mode == 'LAB': img = Image.new('LAB', (24, 24), (100, 128, 128))
    else: img = red.convert(mode)
    out = tfm(img, random.Random(0)) if 'Random' in str(tfm) else tfm(img)
    assert out.mode == 'RGB' and np.abs(np.asarray(out).astype(int) - np.asarray(img.convert('RGB'))).max() <= 1


# Where the pixels come from

@pytest.mark.parametrize('name', FILTERS)
def test_crop_resize_is_pillows_resize_of_a_box(name):
    img, box = picture(), (5.5, 3, 44.25, 40)
    want = img.resize((31, 17), FILTERS[name], box=box)
    assert crop_resize(img, box, (17, 31), name).tobytes() == want.tobytes()


def test_a_center_crop_is_the_middle():
    img = picture(61, 45)
    assert CenterCrop((45, 61))(img).tobytes() == img.tobytes()
    assert CenterCrop(45)(img).tobytes() == img.crop((8, 0, 53, 45)).tobytes()
    assert CenterCrop(20, zoom=2)(picture(40, 60)).tobytes() == picture(40, 60).crop((10, 20, 30, 40)).tobytes()
    assert center_box(300, 100, (50, 50), 2) == (125, 25, 175, 75)
    assert center_box(100, 300, (100, 200)) == (0, 125, 100, 175)
    for w, h, size in [(7, 3, (5, 4)), (100, 37, (3, 11)), (1, 9, (64, 64))]:
        l, u, r, b = center_box(w, h, size)
        assert 0 <= l < r <= w + 1e-9 and 0 <= u < b <= h + 1e-9
        assert math.isclose((r - l)/(b - u), size[1]/size[0]) and (math.isclose(r - l, w) or math.isclose(b - u, h))


def test_without_chance_a_random_resized_crop_is_the_center_crop():
    for size in (24, (10, 30)):
        assert RandomResizedCrop(size)(picture(), None).tobytes() == CenterCrop(size)(picture()).tobytes()


def test_crops_keep_their_ranges_and_follow_the_distribution():
    tfm, rng = RandomResizedCrop(8, scale=(0.1, 0.5), ratio=(0.5, 2.)), random.Random(0)
    boxes = np.array([tfm.draw_box(1000, 1000, rng) for _ in range(20_000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0 and boxes.max() <= 1000
    area, log_ratio = w*h/1e6, np.log(w/h)
    assert 0.1 - 1e-9 <= area.min() < 0.101 and 0.499 < area.max() <= 0.5 + 1e-9
    assert abs(log_ratio).max() <= math.log(2) + 1e-9
    # scale <= 1/ratio, so that every box fits and nothing is drawn again: both are even
    assert abs(area.mean() - 0.3) < 0.004 and abs(area.std() - 0.4/math.sqrt(12)) < 0.003
    assert abs(log_ratio.mean()) < 0.015 and abs(log_ratio.std() - 2*math.log(2)/math.sqrt(12)) < 0.01
    assert abs(np.corrcoef(area, log_ratio)[0, 1]) < 0.03
    left = boxes[:, 0]/(1000 - w)
    assert abs(left.mean() - 0.5) < 0.01 and abs(left.std() - 1/math.sqrt(12)) < 0.01


def test_crops_that_do_not_fit_are_drawn_again():
    tfm, rng = RandomResizedCrop(8), random.Random(0)
    for w, h in (400, 300), (300, 400), (50, 50):
        boxes = np.array([tfm.draw_box(w, h, rng) for _ in range(3000)])
        bw, bh = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        assert boxes.min() >= 0 and boxes[:, 2].max() <= w and boxes[:, 3].max() <= h
        assert (bw*bh/(w*h)).min() >= 0.35 - 1e-9 and (bw/bh).min() > 0.7499 and (bw/bh).max() < 1.3334


def test_in_a_panorama_the_largest_box_of_a_random_shape_goes_to_a_random_place():
    boxes = np.array([RandomResizedCrop(8).draw_box(1000, 50, random.Random(i)) for i in range(500)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (w/h).min() > 0.7499 and (w/h).max() < 1.3334 and np.allclose(h, 50)
    assert boxes[:, 0].min() < 50 and boxes[:, 2].max() > 950 and boxes[:, 0].std() > 200


def test_flips_come_as_often_as_asked():
    img = picture()
    mirrored = img.transpose(Image.Transpose.FLIP_LEFT_RIGHT).tobytes()
    for p in (0., 0.2, 1.):
        n = sum(RandomFlip(p)(img, random.Random(i)).tobytes() == mirrored for i in range(1000))
        assert abs(n/1000 - p) < 0.05 and (p not in (0., 1.) or n == 1000*p)


def test_the_eight_ways_are_rotations_and_mirrorings():
    x = to_tensor(picture(20, 20))
    want = {o.rot90(k, (1, 2)).numpy().tobytes() for o in (x, x.flip(-1)) for k in range(4)}
    got = {to_tensor(dihedral(picture(20, 20), k)).numpy().tobytes() for k in range(8)}
    assert got == want and len(got) == 8
    counts = np.zeros(8)
    keys = {dihedral(picture(20, 20), k).tobytes(): k for k in range(8)}
    for i in range(1600): counts[keys[RandomDihedral()(picture(20, 20), random.Random(i)).tobytes()]] += 1
    assert counts.min() > 140


# JPEG

def test_a_large_jpeg_is_decoded_small_and_the_image_handed_in_is_not_touched(monkeypatch):
    scales = []
    from PIL.JpegImagePlugin import JpegImageFile
    draft = JpegImageFile.draft
    def spy(self, mode, size):
        res = draft(self, mode, size)
        scales.append(self.decoderconfig[0])
        return res
    monkeypatch.setattr(JpegImageFile, 'draft', spy)
    file = jpeg(picture(800, 600))
    for size, scale in ((500, None), (299, 2), (150, 4), (70, 8), (16, 8)):
        scales.clear()
        img = Image.open(file)
        out = crop_resize(img, (0, 0, 600, 600), (size, size))
        assert scales == ([] if scale is None else [scale]), size
        if scale: assert img.tile and img.size == (800, 600)
        want = Image.open(file).convert('RGB').resize((size, size), FILTERS['bilinear'], box=(0, 0, 600, 600))
        assert abs(pixels(out) - pixels(want)).mean() < 3
        img.load()
        assert img.tobytes() == Image.open(file).tobytes()        # still whole


@pytest.mark.parametrize('size', [(803, 601), (799, 607), (801, 600)])
def test_a_draft_reads_the_same_place_also_where_the_sides_do_not_divide(size):
    x = np.linspace(0, 255, size[0])
    file = jpeg(Image.fromarray(np.tile(x, (size[1], 1)).astype(np.uint8)))
    for box in (0, 0, *size), (size[0] - 400.5, size[1] - 400.5, *size):
        out = pixels(crop_resize(Image.open(file), box, (40, 40))).mean(0)
        step = (box[2] - box[0])/40
        want = np.interp(box[0] + step*(np.arange(40) + 0.5) - 0.5, np.arange(size[0]), x)
        assert abs(out - want)[1:-1].max() < 1.5      # a pixel of the draft off would be 1.3 for 1/4, 2.5 for 1/8


def test_gray_jpegs_progressive_ones_and_files_on_disk_are_drafted_too(tmp_path):
    for name, img, kwargs in ('gray', picture(500, 400, 'L'), {}), ('slow', picture(500, 400), dict(progressive=True)):
        (tmp_path/f'{name}.jpg').write_bytes(jpeg(img, **kwargs).getvalue())
        out = RandomResizedCrop(32)(Image.open(tmp_path/f'{name}.jpg'), random.Random(0))
        want = RandomResizedCrop(32)(img, random.Random(0))
        assert out.mode == img.mode and abs(pixels(out) - pixels(want)).mean() < 3


def test_the_data_block_gets_the_same_pixels_from_files_as_from_decoded_images(tmp_path):
    (tmp_path/'a.jpg').write_bytes(jpeg(picture(500, 400)).getvalue())
    lazy = ImageList([tmp_path/'a.jpg'], tfms=[CenterCrop(32)])[0]
    whole = ImageList([Image.open(tmp_path/'a.jpg').convert('RGB')], tfms=[CenterCrop(32)])[0]
    assert lazy.dtype == torch.uint8 and lazy.shape == (3, 32, 32)
    assert (lazy.float() - whole.float()).abs().mean() < 3


def test_a_turned_photograph_is_cropped_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    img = picture(600, 400)
    (tmp_path/'a.jpg').write_bytes(jpeg(img.transpose(Image.Transpose.ROTATE_90), exif=exif).getvalue())
    got = ImageList([tmp_path/'a.jpg'], tfms=[CenterCrop(64)])[0]
    assert (got.float() - to_tensor(CenterCrop(64)(img)).float()).abs().mean() < 3


def test_a_truncated_jpeg_fails_by_name(tmp_path):
    (tmp_path/'bad.jpg').write_bytes(jpeg(picture(800, 600)).getvalue()[:9000])
    with pytest.raises(OSError, match='bad.jpg'): ImageList([tmp_path/'bad.jpg'], tfms=[RandomResizedCrop(32)])[0]


# Perspective

def test_a_homography_sends_the_corners_where_it_should():
    src = CORNERS*torch.rand(7, 4, 2, generator=gen()) + torch.rand(7, 1, 2, generator=gen(1))
    H = homography(src, CORNERS)
    uvk = F.pad(CORNERS.double(), (0, 1), value=1.) @ H.mT
    torch.testing.assert_close(uvk[..., :2]/uvk[..., 2:], src.double(), rtol=0, atol=1e-9)
    assert H.shape == (7, 3, 3) and (H[:, 2, 2] == 1).all()
    back = torch.linalg.inv(H) @ homography(src, CORNERS)
    torch.testing.assert_close(back, torch.eye(3).double().expand(7, 3, 3), rtol=0, atol=1e-9)


def test_an_affine_map_is_a_homography_without_a_third_row():
    A = rotate_mat(20.)[0] @ shift_mat(0.1, 0.2)[0]
    src = F.pad(CORNERS, (0, 1), value=1.) @ A.T
    torch.testing.assert_close(homography(src[:, :2], CORNERS).float(), A, rtol=0, atol=1e-6)


def test_a_warp_asks_for_nothing_outside_and_its_corners_stay_within_the_magnitude():
    img = Image.new('L', (50, 40), 255)
    for i in range(50): assert np.asarray(PerspectiveWarp(0.6)(img, random.Random(i))).min() == 255
    x, y = np.meshgrid(np.linspace(-1, 1, 200), np.linspace(-1, 1, 100))
    across = Image.fromarray(x.astype(np.float32))
    for i in range(50):
        a = np.asarray(PerspectiveWarp(0.4)(across, random.Random(i)))
        assert -1 <= a[0, 0] <= -0.59 and 0.59 <= a[0, -1] <= 1 and -1 <= a[-1, 0] <= -0.59 and 0.59 <= a[-1, -1] <= 1


# Batches

def close(a, b, atol=2e-5): torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.mark.parametrize('shape', [(3, 3, 20, 28), (2, 1, 33, 17), (1, 3, 128, 128), (2, 3, 1, 5)])
def test_matrices_that_need_no_interpolation_are_exact(shape):
    xb = torch.rand(shape, generator=gen())
    h, w = shape[2:]
    close(affine_batch(xb, torch.eye(3)), xb)
    close(affine_batch(xb, torch.eye(3)[:2].expand(len(xb), 2, 3)), xb)
    close(affine_batch(xb, flip_mat(True)), xb.flip(-1))
    close(affine_batch(xb, zoom_mat(1.)), xb)
    close(affine_batch(xb, torch.eye(3), 24), affine_batch(xb, torch.eye(3), (24, 24)))
    close(affine_batch(xb, rotate_mat(0., w/h)), xb)
    close(affine_batch(xb, rotate_mat(180., w/h)), xb.rot90(2, (2, 3)))
    for k in 1, 2, 3: close(affine_batch(xb, rotate_mat(90.*k), (w, h) if k % 2 else None), xb.rot90(k, (2, 3)))


def test_a_quarter_turn_is_counterclockwise_as_in_torch_and_pillow():
    img = picture(40, 40)
    x = to_tensor(img).float()[None]
    close(affine_batch(x, rotate_mat(90.)), to_tensor(img.rotate(90)).float()[None], atol=0.02)


def test_a_shift_by_whole_pixels_moves_them():
    xb = batch(2, 3, 20, 30)
    close(affine_batch(xb, shift_mat(6/30, 3/20))[..., 3:, 6:], xb[..., :-3, :-6])
    close(affine_batch(xb, shift_mat(-6/30, -3/20))[..., :-3, :-6], xb[..., 3:, 6:])
    close(affine_batch(xb, shift_mat(6/30), padding_mode='zeros')[..., :6], torch.zeros(2, 3, 20, 6))


def test_padding_reflects_repeats_or_blackens_the_edge():
    xb = torch.arange(1., 9).expand(1, 1, 3, 8)
    want = dict(zeros=[0, 0, 0, 1], border=[1, 1, 1, 1], reflection=[3, 2, 1, 1])
    for mode, row in want.items():
        close(affine_batch(xb, shift_mat(3/8), padding_mode=mode)[0, 0, 0, :4], torch.tensor(row, dtype=torch.float32),
              1e-4)


def test_zoom_two_is_the_middle_and_zoom_a_half_undoes_it_in_matrices():
    xb = batch(2, 3, 40, 64)
    close(affine_batch(xb, zoom_mat(2.), (20, 32)), xb[..., 10:30, 16:48])
    close(zoom_mat(2.) @ zoom_mat(0.5), torch.eye(3)[None])


def test_matrices_by_hand():
    r3 = math.sqrt(3)/2
    close(rotate_mat(30., 2.)[0], torch.tensor([[r3, -0.25, 0], [1, r3, 0], [0, 0, 1]]), 1e-6)
    close(shear_mat(45., 2.)[0], torch.tensor([[1, 0.5, 0], [0, 1, 0], [0, 0, 1.]]), 1e-6)
    close(shift_mat(0.25, -0.5)[0], torch.tensor([[1, 0, -0.5], [0, 1, 1], [0, 0, 1.]]), 1e-6)
    close(zoom_mat(torch.tensor([4., 0.5])),
          torch.stack([torch.diag(torch.tensor([0.25, 0.25, 1])), torch.diag(torch.tensor([2., 2, 1]))]))
    assert flip_mat(torch.tensor([True, False]))[:, 0, 0].tolist() == [-1, 1]
    for f in rotate_mat, zoom_mat, shift_mat, shear_mat:
        assert f(torch.ones(5)).shape == (5, 3, 3) and f(1).dtype == torch.float32


def test_a_rotation_does_not_shear_pictures_that_are_not_square():
    "A disc stays a disc: its second moments in pixels stay equal."
    h, w = 60, 120
    y, x = torch.meshgrid(torch.arange(h) - 29.5, torch.arange(w) - 59.5, indexing='ij')
    disc = (x**2 + y**2 < 20**2).float()[None, None]
    def spread(o): return (o*x**2).sum()/o.sum(), (o*y**2).sum()/o.sum()
    a, b = spread(affine_batch(disc, rotate_mat(37., w/h), padding_mode='zeros'))
    assert abs(a/b - 1) < 0.02
    a, b = spread(affine_batch(disc, rotate_mat(37.), padding_mode='zeros'))
    assert abs(a/b - 1) > 0.3


def test_products_of_matrices_are_done_from_left_to_right():
    xb = torch.zeros(1, 1, 41, 41)
    xb[..., 20, 20] = 1
    def where(o): return divmod(o.flatten().argmax().item(), 41)
    assert where(affine_batch(xb, shift_mat(10/41) @ rotate_mat(90.))) == (10, 20)     # right, then turned: up
    assert where(affine_batch(xb, rotate_mat(90.) @ shift_mat(10/41))) == (20, 30)


def test_one_reading_equals_the_composition_of_exact_steps():
    xb = batch(4, 3, 32, 32)
    steps = [rotate_mat(90.), flip_mat(True), shift_mat(4/32, 8/32), rotate_mat(270.)]
    one_by_one, product = xb, torch.eye(3)
    for m in steps: one_by_one, product = affine_batch(one_by_one, m, padding_mode='zeros'), product @ m
    close(affine_batch(xb, product, padding_mode='zeros'), one_by_one, 1e-4)


def test_two_and_three_rows_agree_with_pytorch():
    xb, mats = batch(6, 3, 17, 23), AffineBatch(40, (0.6, 1.7), 0.3, 20, warp=0.).mats(6, 23/17, gen(4))
    grid = F.affine_grid(mats[:, :2], xb.shape, align_corners=False)
    for mode in 'bilinear', 'nearest', 'bicubic':
        for pad in 'zeros', 'border', 'reflection':
            want = F.grid_sample(xb, grid, mode, pad, align_corners=False)
            close(affine_batch(xb, mats[:, :2], mode=mode, padding_mode=pad), want)
            if mode != 'nearest': close(affine_batch(xb, mats, mode=mode, padding_mode=pad), want, 1e-4)


def test_a_warped_batch_is_what_pillow_warps():
    img = picture(64, 48)
    inside = 1 - 0.5*torch.rand(5, 4, 2, generator=gen())
    ours = affine_batch(to_tensor(img).float().expand(5, -1, -1, -1), homography(CORNERS*inside, CORNERS))
    half = torch.tensor(img.size)/2
    for i in range(5):
        coeffs = homography((CORNERS*inside[i] + 1)*half, (CORNERS + 1)*half).flatten()[:8].tolist()
        theirs = img.transform(img.size, Image.Transform.PERSPECTIVE, coeffs, FILTERS['bilinear'])
        assert (ours[i] - to_tensor(theirs)).abs()[:, 1:-1, 1:-1].max() < 1.6


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_types_come_back_and_half_precision_does_not_blur_places(dtype):
    xb = batch(3, 3, 64, 64).to(dtype)
    out = affine_batch(xb, rotate_mat(torch.tensor([0., 90., 180.])))
    assert out.dtype == dtype
    torch.testing.assert_close(out[1].float(), xb[1].rot90(1, (1, 2)).float(), rtol=0, atol=1e-2)


def test_gray_batches_and_gradients_go_through():
    for tfm in BATCH: assert tfm(batch(4, 1), gen()).shape == (4, 1, 20, 28)
    xb = batch().requires_grad_()
    affine_batch(xb, rotate_mat(10.)).sum().backward()
    assert xb.grad.abs().sum() > 0


@cuda
@each_batch
def test_on_cuda_the_same_chance_gives_the_same_batch(tfm):
    xb = batch(8)
    close(tfm(xb.cuda(), gen()).cpu(), tfm(xb, gen()), 1e-3)


def test_affine_ranges_are_kept():
    mats = AffineBatch(20, (1, 1), warp=0., p=1.).mats(4000, 1., gen())
    angle = torch.atan2(mats[:, 1, 0], mats[:, 0, 0]).rad2deg()
    assert 19.8 < angle.max() <= 20.001 and -20.001 <= angle.min() < -19.8 and angle.mean().abs() < 1
    zoom = 1/AffineBatch(0, (0.5, 2.), warp=0., p=1.).mats(4000, 1., gen())[:, 0, 0]
    assert 0.5 <= zoom.min() < 0.505 and 1.98 < zoom.max() <= 2.001 and zoom.log().mean().abs() < 0.03
    moved = (AffineBatch(0, (1, 1), warp=0., shift=0.1, p=0.25).mats(4000, 1., gen())[:, 0, 2] != 0).float().mean()
    assert abs(moved - 0.25) < 0.03
    flipped = (AffineBatch(0, (1, 1), warp=0., flip=0.3, p=0.).mats(4000, 1., gen())[:, 0, 0] < 0).float().mean()
    assert abs(flipped - 0.3) < 0.03


# Light

def test_light_never_clips_and_keeps_the_order_of_pixels():
    ramp = torch.linspace(0.01, 0.99, 99).reshape(1, 1, 9, 11)
    for tfm in Brightness(0.9, p=1.), Contrast(0.6, p=1.):
        for seed in range(20):
            out = tfm(ramp, gen(seed))
            assert 0 < out.min() and out.max() < 1 and (out.flatten().diff() > 0).all()


def test_light_by_hand():
    xb = torch.full((3, 1, 2, 2), 0.5)
    out = light_batch(xb, add=torch.tensor([0., math.log(3), -math.log(3)]))[:, 0, 0, 0]
    close(out, torch.tensor([0.5, 0.75, 0.25]), 1e-6)
    close(light_batch(torch.full((1, 1, 1, 1), 0.8), times=2.), torch.full((1, 1, 1, 1), 16/17), 1e-6)   # odds 4 -> 16
    black_white = torch.tensor([0., 1.]).reshape(1, 1, 1, 2)
    assert torch.equal(light_batch(black_white), black_white)
    assert ((light_batch(black_white, times=1.0001)*255).round() == black_white*255).all()


def test_light_ranges_are_kept():
    gray = torch.full((4000, 1, 1, 1), 0.5)
    out = Brightness(0.3, p=1.)(gray, gen())
    assert 0.35 <= out.min() < 0.352 and 0.648 < out.max() <= 0.65
    assert abs((Brightness(0.3, p=0.2)(gray, gen()) != 0.5).float().mean() - 0.2) < 0.03
    odds = Contrast(0.5, p=1.)(torch.full((4000, 1, 1, 1), 0.7310586), gen()).logit()      # logit 1: the factor itself
    assert 0.499 < odds.min() < 0.505 and 1.98 < odds.max() < 2.001 and odds.log().mean().abs() < 0.03


def test_light_after_normalization_is_refused():
    for tfm in Brightness(), Contrast():
        with pytest.raises(ValueError, match='before Normalize'): tfm(norm_imagenette(batch()), gen())


def test_norm_imagenette_is_a_normalization_that_can_be_undone():
    assert isinstance(norm_imagenette, Normalize)
    xb = batch()
    close(norm_imagenette.decode(norm_imagenette(xb)), xb, 1e-6)
    close(norm_imagenette(xb)[0, 2], (xb[0, 2] - 0.45)/0.30, 1e-6)


# Sentences

@pytest.mark.parametrize('make, words', [
    (lambda: CenterCrop(0), 'CenterCrop takes pixels'), (lambda: CenterCrop(2.5), 'size=2.5'),
    (lambda: CenterCrop((3,)), r'\(height, width\)'), (lambda: RandomResizedCrop((3, 4, 5)), r'size=\(3, 4, 5\)'),
    (lambda: RandomCrop('8'), "size='8'"), (lambda: RandomCrop(True), 'size=True'),
    (lambda: RandomCrop((8, -1)), 'least 1'),
    (lambda: CenterCrop(8, zoom=0.5), 'zoom=0.5'), (lambda: CenterCrop(8, resample='soft'), 'one of nearest, box'),
    (lambda: CenterCrop(8, resample=2), 'resample=2'), (lambda: RandomFlip(1.5), 'from 0 to 1'),
    (lambda: RandomFlip('often'), "p='often'"), (lambda: RandomFlip(math.nan), 'p=nan'),
    (lambda: RandomCrop(8, -1), 'padding=-1'), (lambda: RandomCrop(8, 1.5), 'padding=1.5'),
    (lambda: RandomCrop(8, 1, 'mirror'), 'zeros, border, reflection'),
    (lambda: RandomResizedCrop(8, scale=0.35), 'two numbers'),
    (lambda: RandomResizedCrop(8, scale=(0.5, 0.2)), 'least, most'),
    (lambda: RandomResizedCrop(8, scale=(0, 1)), 'above 0'), (lambda: RandomResizedCrop(8, scale=(0.5, 2)), 'up to 1'),
    (lambda: RandomResizedCrop(8, ratio=(1, 2, 3)), 'ratio='), (lambda: PerspectiveWarp(2.), 'magnitude=2.0'),
    (lambda: PerspectiveWarp(resample='lanczos'), 'nearest, bilinear, bicubic'),
    (lambda: AffineBatch(rotate=-5), 'rotate=-5'),
    (lambda: AffineBatch(zoom=1.2), 'two numbers'), (lambda: AffineBatch(padding_mode='wrap'), "padding_mode='wrap'"),
    (lambda: Brightness(1.), 'max_change=1.0'),
    (lambda: Contrast(0.2, p=2), 'Contrast takes a number from 0 to 1 as p'),
    (lambda: affine_batch(torch.zeros(3, 8, 8), torch.eye(3)), r'shape \(bs, c, h, w\)'),
    (lambda: affine_batch(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.eye(3)), 'to_float'),
    (lambda: affine_batch(torch.zeros(2, 3, 8, 8), torch.eye(3).expand(3, 3, 3)), 'one for each of 2'),
    (lambda: affine_batch(torch.zeros(2, 3, 8, 8), torch.eye(4)), r'got shape \(1, 4, 4\)')])
def test_a_wrong_setting_is_named_when_the_transform_is_made(make, words):
    with pytest.raises(ValueError, match=words): make()


@pytest.mark.parametrize('tfm', [f for f in ITEM if not isinstance(f, RandomFlip)], ids=repr)
def test_a_tensor_in_place_of_an_image_is_named(tfm):
    with pytest.raises(TypeError, match='goes before to_tensor'): tfm(to_tensor(picture()), None)


def test_a_flip_takes_tensors_too():
    flipped = RandomFlip(1.)(to_tensor(picture()))
    assert torch.equal(flipped, to_tensor(RandomFlip(1.)(picture())))


def test_numpy_numbers_are_settings_too():
    tfm = RandomResizedCrop(np.int64(24), scale=(np.float64(0.5), 1))
    assert type(tfm.size) is int and tfm(picture(), None).size == (24, 24)
    assert json.dumps(tfm_spec(tfm))
    assert CenterCrop([24, 30]).size == (24, 30)


# In the data block

@pytest.fixture
def folder(tmp_path):
    for i in range(24):
        name = tmp_path/('train' if i < 16 else 'valid')/'ab'[i % 2]/f'{i}.jpg'
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_bytes(jpeg(picture(60 + i, 80 - i, 'L' if i == 3 else 'RGB', seed=i)).getvalue())
    return tmp_path


def loaders(folder, **kwargs):
    return ImageDataLoaders.from_folder(folder, tfms=[RandomResizedCrop(24), RandomFlip()], valid_tfms=[CenterCrop(24)],
                                        bs=5,
                                        batch_tfms=[AffineBatch(), Brightness(), Contrast(), norm_imagenette], **kwargs)


def test_batches_are_the_same_for_any_number_of_workers_and_differ_between_epochs(folder):
    def epochs(num_workers):
        dl = loaders(folder, num_workers=num_workers).train
        return [[xb for xb, _ in dl] for _ in range(2)]
    alone, helped = epochs(0), epochs(2)
    for a, b in zip(alone[0] + alone[1], helped[0] + helped[1]): assert torch.equal(a, b)
    assert not torch.equal(alone[0][0], alone[1][0])


def test_the_same_batches_under_spawn(folder):
    a = [xb for xb, _ in loaders(folder).train]
    b = [xb for xb, _ in loaders(folder, num_workers=1, multiprocessing_context='spawn').train]
    for x, y in zip(a, b, strict=True): assert torch.equal(x, y)


def test_validation_has_no_chance(folder):
    dls = loaders(folder)
    first, again = ([xb for xb, _ in dls.valid] for _ in range(2))
    for a, b in zip(first, again): assert torch.equal(a, b)
    item = ImageList(dls.valid.dataset.x.items[:1], tfms=[CenterCrop(24)])[0]
    close(norm_imagenette.decode(first[0])[0], item/255, 1e-5)


def test_no_warning_on_the_way(folder):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warnings.simplefilter('ignore', ResourceWarning)   # a file whose image was decoded by way of another one
        for _ in loaders(folder).train: pass
