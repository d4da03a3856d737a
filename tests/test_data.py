"""The data block (chapter 08): from files to batches, whatever the files are like, with the same chance for any number
of workers, and sentences for what cannot be right."""
import copy
import functools
import json
import multiprocessing
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import DataLoader

from minidl.data import (BatchLoader, CategoryProcessor, ImageDataLoaders, ImageList, ItemList, LabeledData,
                         MultiCategoryProcessor, Normalize, Pipe, RegressionProcessor, Resize, SplitData, apply_tfms,
                         get_files, grandparent_splitter, label_by_col, label_by_func, label_with,
                         make_tfm, parent_labeler, random_splitter, read_csv, regex_labeler, register_tfm, tfm_spec,
                         to_float, to_rgb, to_tensor, upright, verify_images)
from minidl.datasets import get_data
from minidl.learner import Callback, Checkpoint, Learner, load_learner, register
from minidl.training import accuracy


# ---- transforms, which spawned workers and exported learners find by their names

@register_tfm
@dataclass
class Stain:
    "Writes a number drawn by chance into the second channel; without chance, nothing."
    below:int = 200
    def __call__(self, img, rng=random):
        if rng is None: return img
        red, _, blue = img.split()
        return Image.merge('RGB', (red, red.point([rng.randrange(self.below)]*256), blue))

@register_tfm
@dataclass
class Noise:
    "Adds a number to each item of a batch; without chance, nothing."
    scale:float = 0.1
    def __call__(self, xb, generator=torch.default_generator):
        if generator is None: return xb
        return xb + self.scale*torch.rand(len(xb), 1, 1, 1, generator=generator).to(xb.device)

@register_tfm
@dataclass
class Bright:
    "A batch transform without chance that can be undone."
    plus:float = 0.25
    def __call__(self, xb): return xb + self.plus
    def decode(self, xb): return xb - self.plus

@register_tfm
def invert(img): return ImageOps.invert(img)

def fails_on_three(img):
    if img.getpixel((0, 0))[0] == 3: raise ZeroDivisionError('three')
    return img

def interrupted(img): raise KeyboardInterrupt

@register
def tiny_net(c_in, c_out):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(c_in, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, c_out))


# ---- helpers

def pixels(size=(12, 8), seed=0, channels=3):
    "Random pixels, but smooth enough for JPEG: an array (h, w, channels)."
    small = np.random.RandomState(seed).randint(0, 256, (3, 4, channels), np.uint8)
    grow = lambda c: np.asarray(Image.fromarray(small[..., c]).resize(size, Image.Resampling.BICUBIC))
    planes = [grow(c) for c in range(channels)]
    return np.stack(planes, -1) if channels > 1 else planes[0]

def write(path, img=None, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    img = Image.fromarray(pixels()) if img is None else img
    img.save(path, **how)
    return path

def plain(path, value, size=(8, 8)): return write(path, Image.new('RGB', size, (value,)*3))

def numbered(folder, n=11, n_valid=4):
    "train/a|b/i.png and valid/a|b/i.png; the color of an image is its number, from 0 on."
    for i in range(n + n_valid): plain(folder/('train' if i < n else 'valid')/'ab'[i%2]/f'{i}.png', i)
    return folder

def loaders(folder, tfms=None, **how): return ImageDataLoaders.from_folder(folder, tfms=tfms, **{'bs': 4, **how})
def ids(loader): return [(xb[:, 0, 0, 0]*255).round().int().tolist() for xb, _ in loader]
def batches(loader): return [tuple(t.clone() for t in b) for b in loader]
def end_workers(loader):
    """After an error torch 2.13 waits 5 s for each worker: the error's cycle keeps the iterator until it is garbage,
    and then its queues are closed before the workers are told to end."""
    if getattr(loader, '_iterator', None) is not None: loader._iterator._shutdown_workers()
    loader._iterator = None
def fails(loader, kind, words=None):
    "What `loader` raises while it is gone through."
    with pytest.raises(kind, match=words) as e: batches(loader)
    end_workers(loader)
    return e
def same(a, b):
    return len(a) == len(b) and all(len(s) == len(t) and all(map(torch.equal, s, t)) for s, t in zip(a, b))
def told(error): return '\n'.join([str(error.value), *getattr(error.value, '__notes__', [])])
def rng_states(): return torch.get_rng_state().tolist(), pickle.dumps((random.getstate(), np.random.get_state()))
def names(files): return [f.name for f in files]
def upright_pixels(path, mode='RGB'):
    return torch.from_numpy(np.array(ImageOps.exif_transpose(Image.open(path)).convert(mode)))
def quiet(dls, model=None, cbs=(), **kw):
    kw = dict(loss_func=F.cross_entropy, lr=0.05, metrics=[accuracy], device='cpu') | kw
    return Learner(model or tiny_net(3, 2), dls, cbs=cbs, progress=False, **kw)

@pytest.fixture
def folder(tmp_path): return numbered(tmp_path/'numbers')

@pytest.fixture(scope='module')
def imagenette(): return get_data('imagenette')

@pytest.fixture(scope='module')
def pets(): return get_data('pets')


# ---- get_files

def touch(folder, *paths):
    for p in paths:
        (folder/p).parent.mkdir(parents=True, exist_ok=True)
        (folder/p).touch()
    return folder

@pytest.mark.parametrize('extensions', ['.jpg', 'jpg', 'JPG', '.JpG', ['jpg'], ('.jpg', '.nope'), {'jpg'}])
def test_extensions_count_in_either_case_and_with_or_without_a_dot(tmp_path, extensions):
    touch(tmp_path, 'a.jpg', 'b.JPG', 'c.Jpg', 'd.jpeg', 'jpg', 'ejpg', 'f.jpg.txt', 'g.png')
    assert names(get_files(tmp_path, extensions)) == ['a.jpg', 'b.JPG', 'c.Jpg']

def test_an_extension_may_have_two_dots_and_none_means_every_file(tmp_path):
    touch(tmp_path, 'a.tar.gz', 'b.gz', 'README', 'c')
    assert names(get_files(tmp_path, '.tar.gz')) == ['a.tar.gz']
    assert names(get_files(tmp_path, ('.gz',))) == ['a.tar.gz', 'b.gz']
    assert names(get_files(tmp_path)) == ['README', 'a.tar.gz', 'b.gz', 'c'] and get_files(tmp_path, []) == []

def test_files_come_sorted_as_paths_that_begin_with_the_folder_as_it_was_given(tmp_path, monkeypatch):
    touch(tmp_path, 'b/2.txt', 'b/1.txt', 'a/z/9.txt', 'a.txt', 'c/d/e/f.txt')
    expected = ['a.txt', 'a/z/9.txt', 'b/1.txt', 'b/2.txt', 'c/d/e/f.txt']
    found = get_files(str(tmp_path))
    assert sorted(o.relative_to(tmp_path).as_posix() for o in found) == expected
    assert found == get_files(tmp_path) and all(isinstance(o, Path) for o in found) and found == sorted(found, key=str)
    monkeypatch.chdir(tmp_path)
    assert [Path(tmp_path)/o for o in get_files('.')] == found

def test_looking_into_folders_can_be_limited(tmp_path):
    touch(tmp_path, 'top.txt', 'a/1.txt', 'a/deep/2.txt', 'b/3.txt', 'c/4.txt')
    assert names(get_files(tmp_path, recurse=False)) == ['top.txt']
    assert names(get_files(tmp_path, include='a')) == ['1.txt', '2.txt']
    assert names(get_files(tmp_path, include=['b', 'a'], recurse=False)) == ['1.txt', '3.txt']
    assert get_files(tmp_path, include=[]) == []
    with pytest.raises(ValueError, match='no folder nope.*include'): get_files(tmp_path, include=['a', 'nope'])
    with pytest.raises(ValueError, match='top.txt'): get_files(tmp_path, include=['top.txt'])

def test_no_file_comes_twice_when_folders_are_named_twice(tmp_path):
    touch(tmp_path, 'a/1.txt', 'a/deep/2.txt')
    assert names(get_files(tmp_path, include=['a', 'a'])) == ['1.txt', '2.txt']

def test_hidden_files_and_folders_are_left_out_but_the_folder_itself_may_be_hidden(tmp_path):
    hidden = touch(tmp_path/'.cache', 'a.txt', '.b.txt', '.git/c.txt', 'd/.DS_Store', 'd/e.txt', '..f.txt')
    assert names(get_files(hidden)) == ['a.txt', 'e.txt']
    assert names(get_files(tmp_path)) == []

def test_links_to_files_and_folders_are_followed_but_into_each_folder_once(tmp_path):
    touch(tmp_path, 'a/1.txt', 'elsewhere/2.txt')
    (tmp_path/'a/link.txt').symlink_to(tmp_path/'elsewhere/2.txt')
    (tmp_path/'a/gone.txt').symlink_to(tmp_path/'nothing')
    (tmp_path/'a/up').symlink_to(tmp_path)
    (tmp_path/'a/folder.txt').symlink_to(tmp_path/'elsewhere')
    (tmp_path/'elsewhere/again').symlink_to('.')
    files = get_files(tmp_path/'a')
    short = [f.relative_to(tmp_path/'a').as_posix() for f in files]
    assert short == ['1.txt', 'folder.txt/2.txt', 'link.txt']
    assert names(get_files(tmp_path/'a', recurse=False)) == ['1.txt', 'link.txt']

def test_links_to_folders_elsewhere_are_classes(folder, tmp_path):
    for side in 'train', 'valid':
        (tmp_path/side).mkdir()
        for name in 'a', 'b': (tmp_path/side/name).symlink_to(folder/side/name)
    dls = ImageDataLoaders.from_folder(tmp_path, tfms=Resize(8), bs=2)
    there = ImageDataLoaders.from_folder(folder, tfms=Resize(8), bs=2)
    assert dls.vocab == ['a', 'b'] and len(dls.train.dataset) == len(there.train.dataset)
    assert torch.equal(dls.valid.dataset.y, there.valid.dataset.y)

def test_a_folder_with_two_names_is_listed_once_under_its_own_or_else_the_first(tmp_path):
    touch(tmp_path, 'in/cat/1.txt', 'in/z/deep/2.txt', 'out/3.txt', 'out/inner/4.txt')
    (tmp_path/'in/bobcat').symlink_to('cat')
    (tmp_path/'in/z/kitty').symlink_to(tmp_path/'in/cat')
    (tmp_path/'in/a').symlink_to('z/deep')
    for name in 'far', 'farther': (tmp_path/'in'/name).symlink_to(tmp_path/'out')
    (tmp_path/'in/last').symlink_to(tmp_path/'out/inner')
    listed = lambda **k: [f.relative_to(tmp_path/'in').as_posix() for f in get_files(tmp_path/'in', **k)]
    assert listed() == ['cat/1.txt', 'far/3.txt', 'far/inner/4.txt', 'z/deep/2.txt']
    assert listed(include=['bobcat', 'cat']) == ['cat/1.txt'] and listed(include='bobcat') == ['bobcat/1.txt']

def test_folders_linked_with_each_other_do_not_multiply(tmp_path):
    for i in range(6):
        touch(tmp_path, f'{i}/file.txt')
        for j in range(6):
            if i != j: (tmp_path/f'{i}/to{j}').symlink_to(tmp_path/f'{j}')
    assert len(get_files(tmp_path)) == 6

def test_a_link_to_itself_is_left_out(tmp_path):
    touch(tmp_path, 'a.txt')
    (tmp_path/'b.txt').symlink_to('b.txt')
    (tmp_path/'c.txt').symlink_to('d.txt')
    (tmp_path/'d.txt').symlink_to('c.txt')
    assert names(get_files(tmp_path, 'txt')) == ['a.txt']

def test_a_folder_that_is_none_is_refused_in_a_sentence(tmp_path):
    touch(tmp_path, 'a.txt')
    with pytest.raises(FileNotFoundError, match='no folder .*nope'): get_files(tmp_path/'nope')
    with pytest.raises(NotADirectoryError, match='a.txt is a file'): get_files(tmp_path/'a.txt')

def test_an_empty_folder_is_an_empty_list_but_no_item_list(tmp_path):
    assert get_files(tmp_path) == []
    touch(tmp_path, 'notes.txt')
    with pytest.raises(ValueError, match=r'no files that end in \.jpg.* under .*ImageList'):
        ImageList.from_files(tmp_path)
    with pytest.raises(ValueError, match='end in .pdf'): ImageList.from_files(tmp_path, extensions='.pdf')
    assert len(ItemList.from_files(tmp_path)) == 1

STRANGE = ['Zürich/Käse 1.png', 'with space/b c.png', '日本/猫.png', 'a#b/50%.png', "it's/q\"uote.png",
           'x.y/[1].png', 'é/é.png']

def test_names_may_hold_any_letters_and_spaces(tmp_path):
    for i, name in enumerate(STRANGE): plain(tmp_path/name, 30*i)
    files = get_files(tmp_path, '.png')
    assert sorted(str(f.relative_to(tmp_path)) for f in files) == sorted(STRANGE)
    assert verify_images(files) == []
    sd = SplitData.split_by_files(ImageList(files, tmp_path), STRANGE[:3])
    assert sorted(o.relative_to(tmp_path).as_posix() for o in sd.valid.items) == sorted(STRANGE[:3])
    dls = label_by_func(sd, parent_labeler, proc_y=CategoryProcessor(sorted(f.parent.name for f in files))).to_dls(3)
    xb, yb = dls.one_batch()
    assert {round(x.item()*255) for x in xb[:, 0, 0, 0]} <= {90, 120, 150, 180}
    assert '日本' in dls.vocab

def test_a_name_that_is_no_text_is_a_file_like_others(tmp_path):
    raw = os.fsdecode(b'\xff\xfe.png')
    try: plain(tmp_path/'a'/raw, 5)
    except OSError: pytest.skip('this file system refuses such names')
    files = get_files(tmp_path)
    assert names(files) == [raw]
    assert random_splitter(files[0]) in (True, False)
    assert ImageList(files)[0].shape == (3, 8, 8)

def test_three_thousand_files_are_listed_in_a_moment(tmp_path):
    for k in range(30):
        (tmp_path/f'{k}').mkdir()
        for i in range(100): os.close(os.open(tmp_path/f'{k}'/f'{i}.JPEG', os.O_CREAT))
    start = time.perf_counter()
    files = get_files(tmp_path, ('.jpg', '.jpeg'))
    assert len(set(files)) == 3000 and time.perf_counter() - start < 1


# ---- every kind of image

def palette(): return Image.fromarray(pixels()).quantize(16)

def with_alpha(mode, alpha=77):
    img = Image.fromarray(pixels()).convert('RGB' if mode == 'RGBA' else 'L')
    img.putalpha(alpha)
    return img

def color(mode='RGB'): return Image.fromarray(pixels()).convert(mode)
def gray(mode='L'): return Image.fromarray(pixels(channels=1)).convert(mode)

KINDS = {
    'color.png': lambda: (color(), {}), 'color.bmp': lambda: (color(), {}), 'color.tif': lambda: (color(), {}),
    'color.jpg': lambda: (color(), dict(quality=95, subsampling=0)),
    'color_key.png': lambda: (color(), dict(transparency=(1, 2, 3))),
    'gray.png': lambda: (gray(), {}), 'gray.jpg': lambda: (gray(), {}), 'one_bit.png': lambda: (gray('1'), {}),
    'alpha.png': lambda: (with_alpha('RGBA'), {}), 'gray_alpha.png': lambda: (with_alpha('LA'), {}),
    'palette.png': lambda: (palette(), {}), 'palette.gif': lambda: (palette(), {}),
    'palette_transparent.png': lambda: (palette(), dict(transparency=3)),
    'palette_alphas.png': lambda: (palette(), dict(transparency=bytes(range(0, 160, 10)))),
    'animated.gif': lambda: (palette(), dict(save_all=True, append_images=[palette(), palette()])),
    'cmyk.jpg': lambda: (color('CMYK'), {}), 'cmyk.tif': lambda: (color('CMYK'), {}),
    'ycc.tif': lambda: (color('YCbCr'), dict(compression='jpeg'))}

@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_image_becomes_bytes_of_three_channels(kind, tmp_path):
    img, how = KINDS[kind]()
    path = write(tmp_path/kind, img, **how)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)      # Pillow warns of palettes with transparency
        x = ImageList([path])[0]
    assert x.dtype == torch.uint8 and x.shape == (3, 8, 12) and x.is_contiguous()
    with Image.open(path) as opened:
        expected = np.array((opened.convert('RGBA') if 'palette_' in kind else opened).convert('RGB'))
    assert torch.equal(x.permute(1, 2, 0), torch.from_numpy(expected))
    close = torch.from_numpy(np.array(img.convert('RGB')).astype(int))
    assert (x.permute(1, 2, 0).int() - close).abs().float().mean() < (0.1 if '.png' in kind else 8)
    assert verify_images([path]) == []

@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_image_becomes_gray_where_gray_is_asked_for(kind, tmp_path):
    img, how = KINDS[kind]()
    x = ImageList([write(tmp_path/kind, img, **how)], mode='L')[0]
    assert x.dtype == torch.uint8 and x.shape == (1, 8, 12)
    assert (x[0].int() - torch.from_numpy(np.array(img.convert('L')).astype(int))).abs().float().mean() < 8

@pytest.mark.parametrize('ending', ['png', 'tif'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_sixteen_bits_keep_their_upper_eight(ending, mode, tmp_path):
    deep = np.linspace(0, 65535, 96).astype(np.uint16).reshape(8, 12)
    x = ImageList([write(tmp_path/f'deep.{ending}', Image.fromarray(deep))], mode=mode)[0]
    assert x.shape == (3 if mode == 'RGB' else 1, 8, 12)
    for channel in x: assert torch.equal(channel.int(), torch.from_numpy((deep >> 8).astype(np.int32)))

@pytest.mark.parametrize('kind', [np.int32, np.float32])
def test_thirty_two_bits_are_refused_and_not_clipped_to_black_or_white(kind, tmp_path):
    path = write(tmp_path/'deep.tif', Image.fromarray(np.arange(96, dtype=kind).reshape(8, 12)*1000))
    with pytest.raises(TypeError, match='32 bits a pixel.*scale it') as e: ImageList([path], mode='L')[0]
    assert 'deep.tif' in told(e)

def test_a_png_in_mode_i_as_older_pillow_opens_it_has_sixteen_bits():
    deep = np.linspace(0, 65535, 96).astype(np.int32).reshape(8, 12)
    img = Image.fromarray(deep)
    img.format = 'PNG'
    assert np.array_equal(np.asarray(upright(img, 'L')), deep >> 8)

@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp', 'tif'])
def test_an_image_comes_upright_to_the_pixel(orientation, ending, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path/f'turned.{ending}', exif=exif)
    x = ImageList([path])[0]
    assert torch.equal(x.permute(1, 2, 0), upright_pixels(path))
    assert x.shape == ((3, 12, 8) if orientation > 4 else (3, 8, 12))
    assert torch.equal(ImageList([path], mode='L')[0][0], upright_pixels(path, 'L'))

@pytest.mark.parametrize('orientation', [0, 9, 255])
def test_an_orientation_that_does_not_exist_is_none(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path/'turned.jpg', exif=exif)
    assert torch.equal(ImageList([path])[0].permute(1, 2, 0), torch.from_numpy(np.array(Image.open(path))))

def tiff_block(*entries):
    "An EXIF block with entries (tag, type, count, four bytes of value)."
    body = b''.join(struct.pack('>HHI', *numbers) + value for *numbers, value in entries)
    return b'Exif\0\0MM\0*\0\0\0\x08' + len(entries).to_bytes(2, 'big') + body + b'\0\0\0\0'

@pytest.mark.parametrize('other', [(0x011A, 2, 4, b'abc\0'), (0x0100, 2, 4, b'abc\0'), (0x8769, 2, 4, b'abc\0'),
                                   (0x010E, 99, 4, b'\0\0\0\1')])
def test_a_broken_entry_in_the_exif_block_does_not_spoil_the_image(other, tmp_path):
    "Cameras and programs write all sorts of things; the pixels and the orientation are whole."
    path = write(tmp_path/'turned.jpg', exif=tiff_block((0x0112, 3, 1, b'\0\6\0\0'), other))
    x = ImageList([path])[0]
    assert torch.equal(x, torch.from_numpy(np.rot90(np.array(Image.open(path)), -1).copy()).permute(2, 0, 1))

def test_an_exif_block_that_is_no_such_thing_does_not_spoil_the_image(tmp_path):
    for i, block in enumerate([b'Exif\0\0', b'Exif\0\0XXXXXXXX', tiff_block((0x0112, 3, 1, b'\0\6\0\0'))[:20],
                               b'Exif\0\0MM\0*\xff\xff\xff\xff']):
        path = write(tmp_path/f'{i}.jpg', exif=block)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')     # Pillow says that the block is corrupt
            assert ImageList([path])[0].shape == (3, 8, 12)

def test_transforms_see_an_upright_image_in_color_and_in_their_order(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    seen = []
    def look(img):
        seen.append((type(img).__name__ != 'str', img.mode, img.size))
        return img
    write(tmp_path/'a.jpg', Image.fromarray(pixels(channels=1)), exif=exif)
    ImageList.from_files(tmp_path, [look, Resize((5, 7)), look])[0]
    assert seen == [(True, 'RGB', (8, 12)), (True, 'RGB', (7, 5))]

@pytest.mark.parametrize('method', ['crop', 'squish'])
@pytest.mark.parametrize('size', [6, (5, 9), [9, 5], (1, 1), 300])
@pytest.mark.parametrize('ending', ['png', 'jpg'])
def test_resize_gives_height_and_width_also_where_the_decoder_shrinks(method, size, ending, tmp_path):
    gradient = np.linspace(0, 255, 640).astype(np.uint8)[None, :, None].repeat(400, 0).repeat(3, 2)
    x = ImageList([write(tmp_path/f'a.{ending}', Image.fromarray(gradient))], tfms=Resize(size, method))[0]
    h, w = (size, size) if isinstance(size, int) else size
    assert x.shape == (3, h, w)
    part = 1 if method == 'squish' else min(1, 400*w/h/640)      # of the width that is seen
    expected = 127.5 + 255*part*((torch.arange(w) + 0.5)/w - 0.5)
    off = (x.float().mean((0, 1)) - expected).abs()
    assert off[1:-1].max() < 3 if w > 2 else True
    assert off.max() < 6        # a filter is cut off at the edges

@pytest.mark.parametrize('size', [0, -3, (4, 0), 'a', '128', 1.5, (1, 2, 3), None, ()])
def test_a_size_that_is_none_is_a_sentence(size):
    with pytest.raises((ValueError, TypeError), match='size.*(height, width)'.replace('(', r'\(').replace(')', r'\)')):
        Resize(size)

def test_a_method_that_resize_does_not_know_is_a_sentence():
    with pytest.raises(ValueError, match="'crop'.*'squish'.*'pad'"): Resize(8, 'pad')

@pytest.mark.parametrize('method', ['crop', 'squish'])
def test_resize_after_to_tensor_is_a_sentence_that_names_the_order(method):
    for x in torch.zeros(3, 9, 9).byte(), np.zeros((9, 9, 3), np.uint8):
        with pytest.raises(TypeError, match='Resize takes a Pillow image.*before to_tensor'): Resize(8, method)(x)
    assert Resize(8, method)(palette()).mode == 'RGB'      # the numbers of colors have no mean

def test_a_size_may_be_a_numpy_number(tmp_path):
    assert ImageList([write(tmp_path/'a.png')], tfms=Resize(np.int64(5)))[0].shape == (3, 5, 5)

def test_arrays_tensors_and_pillow_images_are_items_too():
    a = pixels()
    items = [a, torch.from_numpy(a).permute(2, 0, 1), Image.fromarray(a), a[..., 0], torch.from_numpy(a[..., 0].copy())]
    il = ImageList(items)
    for i in range(3): assert torch.equal(il[i], torch.from_numpy(a).permute(2, 0, 1))
    for i in 3, 4: assert torch.equal(il[i], torch.from_numpy(a[..., 0].copy()).expand(3, -1, -1))
    assert torch.equal(ImageList([torch.from_numpy(a[..., 0].copy())[None]], mode='L')[0][0],
                       torch.from_numpy(a[..., 0].copy()))
    assert len(repr(il)) < 1000

@pytest.mark.parametrize('item', [torch.rand(3, 8, 8), torch.zeros(3, 8, 8).long(), np.random.rand(8, 8, 3),
                                  np.zeros((3, 8, 8), np.uint8), torch.zeros(5, 8, 8).byte()],
                         ids=['float tensor', 'int64 tensor', 'float array', 'channels first', 'five channels'])
def test_numbers_that_are_no_bytes_are_refused_as_an_image(item):
    with pytest.raises(TypeError, match='uint8') as e: ImageList([item])[0]
    assert len(told(e)) < 1000      # and not the whole image

def test_a_pillow_image_of_the_caller_is_left_as_it_is(tmp_path):
    img = Image.open(write(tmp_path/'a.jpg', Image.fromarray(pixels((512, 400)))))
    whole = np.array(Image.open(tmp_path/'a.jpg'))
    il = ImageList([img], tfms=Resize(32))
    first = il[0]
    assert img.size == (512, 400) and np.array_equal(np.array(img), whole)
    assert (il[0].int() - first.int()).abs().max() <= 4     # the decoder may have shrunk one and not the other

def test_a_transform_that_gives_floats_is_no_silent_black_image(tmp_path):
    path = write(tmp_path/'a.png')
    with pytest.raises((TypeError, ValueError), match='uint8|bytes'):
        ImageList([path], tfms=lambda img: np.asarray(img)/255)[0]
    assert torch.equal(ImageList([path], tfms=np.asarray)[0], ImageList([path])[0])

def test_a_mode_that_pillow_does_not_know_is_refused_at_once(tmp_path):
    with pytest.raises(ValueError, match='XX'): ImageList([write(tmp_path/'a.png')], mode='XX')

def test_no_files_stay_open(tmp_path):
    files = [write(tmp_path/f'{i}.{e}', palette(), **h) for i in range(5) for e, h in
             [('gif', dict(save_all=True, append_images=[palette()])), ('png', {}), ('tif', {})]]
    il, before = ImageList(files), len(os.listdir('/proc/self/fd'))
    xs = [il[i] for i in range(len(il))]
    assert len(xs) == 15 and len(os.listdir('/proc/self/fd')) == before

def test_a_transform_that_is_none_is_refused_when_the_list_is_made(tmp_path):
    path = write(tmp_path/'a.png')
    with pytest.raises(TypeError, match='Resize'): ImageList([path], tfms=[Resize])
    with pytest.raises(TypeError, match='128'): ImageList([path], tfms=[128])

def test_builtin_functions_are_transforms():
    x = torch.arange(3.)
    assert apply_tfms(x, [torch.square, functools.partial(torch.flip, dims=[0])], generator=None).tolist() == [4, 1, 0]

def test_chance_goes_to_those_who_take_it():
    class Method:
        def shift(self, x, rng=None): return x + (rng or 0)
    def add(x, rng=0): return x + rng
    fs = [add, functools.partial(add), Method().shift, lambda x: 2*x, lambda x, generator=1: x*generator]
    assert apply_tfms(1, fs, rng=10) == 62 and apply_tfms(1, [add]) == 1


# ---- files that are none

def cut(path, share=0.5):
    whole = write(path, Image.fromarray(pixels((64, 64)))).read_bytes()
    path.write_bytes(whole[:int(len(whole)*share)])

BAD = {
    'cut.jpg': cut, 'cut.png': cut, 'cut.gif': cut, 'last_bytes.jpg': lambda p: cut(p, 0.9),
    'empty.jpg': lambda p: p.write_bytes(b''),
    'text.jpg': lambda p: p.write_text('I am a letter.'), 'page.png': lambda p: p.write_text('<html>404</html>'),
    'zeros.jpg': lambda p: p.write_bytes(bytes(5000)), 'half_header.png': lambda p: cut(p, 0.02)}

@pytest.mark.parametrize('name', BAD)
@pytest.mark.parametrize('tfms', [None, Resize(4)])
def test_a_bad_file_is_named_with_what_to_do(name, tfms, tmp_path):
    BAD[name](tmp_path/name)
    with pytest.raises(OSError, match=f'{name} cannot be read as an image.*verify_images'):
        ImageList([tmp_path/name], tfms=tfms)[0]

def test_verify_images_lists_all_bad_files_in_their_order(tmp_path):
    for name, make in BAD.items(): make(tmp_path/name)
    for i in range(5): write(tmp_path/f'good{i}.png')
    files = get_files(tmp_path) + [tmp_path/'gone.jpg']
    random.Random(0).shuffle(files)
    for n_threads in 1, 4: assert verify_images(files, n_threads) == [f for f in files if 'good' not in f.name]
    assert verify_images(map(str, files)) == [str(f) for f in files if 'good' not in f.name]
    assert verify_images([]) == []

def test_verify_images_of_a_folder_looks_at_its_images_or_says_what_it_takes(tmp_path):
    cut(tmp_path/'a/cut.jpg')
    for folder in tmp_path, str(tmp_path):
        try: assert verify_images(folder) == [tmp_path/'a/cut.jpg']
        except (TypeError, ValueError) as e: assert 'get_files' in str(e)

def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='gone.jpg'): ImageList([tmp_path/'gone.jpg'])[0]

@pytest.mark.parametrize('ending', ['jpg', 'png', 'gif', 'tif', 'bmp', 'webp'])
def test_whatever_is_wrong_with_a_file_its_name_is_said(ending, tmp_path):
    "Bytes changed and cut at random: each file is read or named, and what cannot be read is what verify_images lists."
    data, r = write(tmp_path/f'a.{ending}').read_bytes(), random.Random(0)
    path, failed = tmp_path/f'b.{ending}', 0
    for _ in range(60):
        changed = bytearray(data[:r.randrange(1, len(data)) if r.random() < 0.3 else None])
        for _ in range(r.randrange(1, 4)): changed[r.randrange(len(changed))] = r.randrange(256)
        path.write_bytes(changed)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                bad = verify_images([path])
                ImageList([path])[0]
        except Exception as e:
            failed += 1
            assert bad == [path] and str(path) in '\n'.join([str(e), *getattr(e, '__notes__', [])])
        else: assert bad == []
    assert failed

def bad_in_train(folder):
    cut(folder/'train/a/4.png')
    return folder

@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_bad_file_in_a_batch_is_named_for_any_number_of_workers(num_workers, folder):
    dls = loaders(bad_in_train(folder), num_workers=num_workers)
    fails(dls.train, OSError, r'train/a/4\.png cannot be read as an image')
    assert len(batches(dls.valid)) == 1
    end_workers(dls.valid)      # the error's frames know it too

@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_transform_that_fails_names_the_item_for_any_number_of_workers(num_workers, folder):
    dls = loaders(folder, fails_on_three, num_workers=num_workers)
    e = fails(dls.train, ZeroDivisionError)
    assert 'three' in told(e) and str(folder/'train/b/3.png') in told(e)

@pytest.mark.parametrize('num_workers', [0, 2])
def test_images_of_two_sizes_are_told_apart_and_resize_is_named(num_workers, folder):
    plain(folder/'train/a/2.png', 2, size=(9, 7))
    dls = loaders(folder, num_workers=num_workers, bs=11)
    e = fails(dls.train, ValueError, '3x8x8')
    assert '3x7x9' in told(e) and 'Resize(' in told(e)
    assert loaders(folder, Resize(6), num_workers=num_workers).one_batch()[0].shape == (4, 3, 6, 6)


# ---- item lists

def test_an_item_list_is_a_list_of_items_and_a_choice_of_them(folder):
    il = ImageList.from_files(folder)
    assert len(il) == 15 and len(list(il)) == 15 and il[-1].shape == (3, 8, 8)
    assert il[2:5].items == il.items[2:5] and il[[0, 3]].items == [il.items[0], il.items[3]]
    assert isinstance(il[:2], ImageList) and 'ImageList: 15 items' in repr(il)
    with pytest.raises(IndexError): il[15]
    assert il[:0].items == []
    for many in (0, 3), np.array([0, 3]), torch.tensor([0, 3]): assert il[many].items == il[[0, 3]].items
    for one in 3, np.int64(3), torch.tensor(3): assert torch.equal(il[one], il[3])
    for mask in [True, False, True], [np.True_], np.array([True, False]), torch.tensor([True, False]):
        with pytest.raises(TypeError, match='numbers of the items'): il[mask]

def test_an_error_within_a_list_is_not_the_end_of_the_list(folder):
    with pytest.raises(IndexError): list(ImageList.from_files(folder, lambda img: [][1]))

def test_a_look_at_an_item_is_without_chance_and_does_not_change_the_list(folder):
    il = ImageList.from_files(folder, [Stain()])
    assert torch.equal(il[3], il[3]) and torch.equal(il[3][0], il[3][1])
    assert not torch.equal(il.get(3, train=True, rng=random.Random(1))[1], il[3][1])

def test_validation_items_may_go_through_other_transforms(folder):
    il = ImageList.from_files(folder, [Stain(), invert], valid_tfms=[])
    assert (il.get(4, train=True, rng=random.Random(0))[0] > 200).all() and (il.get(4)[0] < 16).all()
    dls = loaders(folder, [Stain(), invert], valid_tfms=[])
    assert dls.train.dataset[0][0][0].min() > 200 and dls.valid.dataset[0][0].max() < 16

def test_data_sets_pickle_with_their_transforms(folder):
    dls = loaders(folder, [Stain(), Resize(5)])
    again = pickle.loads(pickle.dumps(dls.train.dataset))
    for i in (0, 3), (1, 3), 5, -1:
        (a, y), (b, z) = dls.train.dataset[i], again[i]
        assert torch.equal(a, b) and y == z
    assert len(list(again)) == len(again) == 11

def test_a_list_of_other_things_works_too():
    class Words(ItemList): pass
    sd = SplitData.split_by_func(Words('aa b cc d'.split(), tfms=[len, torch.tensor]), lambda o: o == 'd')
    dls = label_by_func(sd, lambda o: 'long' if len(o) > 1 else 'short').to_dls(2)
    assert sorted(x for xb, _ in dls.train for x in xb.tolist()) == [1, 2, 2] and dls.c_in is None
    assert dls.vocab == ['long', 'short'] and [xb.tolist() for xb, in dls.test_dl(['eee', ''])] == [[3, 0]]

def test_processors_of_items_are_applied_once_and_to_new_items_too():
    calls = []
    def upper(items):
        calls.append(len(items))
        return [o.upper() for o in items]
    sd = SplitData.split_by_func(ItemList('abcd', tfms=[ord, torch.tensor]), lambda o: o == 'd')
    ll = label_by_func(sd, lambda o: o in 'ab', proc_x=upper)
    assert calls == [3, 1] and ll.train.x.items == ['A', 'B', 'C']
    dls = ll.to_dls(3)
    batches(dls.train)
    assert [xb.tolist() for xb, in dls.test_dl(['x', 'y'])] == [[88, 89]] and calls == [3, 1, 2]

def test_as_many_targets_as_items_are_required():
    sd = SplitData.split_by_func(ItemList('abcd'), lambda o: o == 'd')
    with pytest.raises(ValueError, match='1.*3|3.*1'): label_by_func(sd, str, proc_x=lambda items: items[:1])
    with pytest.raises(ValueError, match='1.*3|3.*1'): label_with(sd, lambda il: ['x'])


# ---- splits

def test_grandparents_split():
    sides = [grandparent_splitter(f) for f in ['x/train/a/1.jpg', 'x/valid/a/1.jpg', 'x/test/a/1.jpg',
                                               Path('train/1.jpg'), '1.jpg']]
    assert sides == [False, True, None, None, None]
    assert grandparent_splitter('val/a/1.jpg', valid_name='val')
    assert grandparent_splitter('t/a/1.jpg', train_name='t') is False

@settings(max_examples=50)
@given(n=st.integers(2, 300), p_valid=st.floats(0.05, 0.95), seed=st.integers(-5, 2**40))
def test_a_random_split_is_a_partition_with_exactly_the_share_asked_for(n, p_valid, seed):
    il = ItemList(range(n), table=dict(row=list(range(n))))
    n_valid = round(n*p_valid)
    if n_valid in (0, n):
        with pytest.raises(ValueError, match='each side'): SplitData.split_random(il, p_valid, seed)
        return
    sd, again = SplitData.split_random(il, p_valid, seed), SplitData.split_random(il, p_valid, seed)
    assert len(sd.valid) == n_valid and sorted(sd.train.items + sd.valid.items) == list(range(n))
    assert sd.train.items == sorted(sd.train.items) and sd.valid.items == again.valid.items
    for side in sd.train, sd.valid: assert side.table['row'] == side.items

def test_another_seed_is_another_split_and_the_global_generators_are_left_alone():
    before, il = rng_states(), ItemList(range(40))
    splits = {tuple(SplitData.split_random(il, seed=s).valid.items) for s in range(20)}
    assert len(splits) == 20 and rng_states() == before
    files = [f'a/{i}.jpg' for i in range(40)]
    assert len({tuple(random_splitter(f, seed=s) for f in files) for s in range(20)}) == 20 and rng_states() == before

@settings(max_examples=30)
@given(files=st.sets(st.tuples(st.sampled_from('abc'), st.text('xyz01 é日', min_size=1, max_size=6)), min_size=1,
                     max_size=40),
       prefix=st.sampled_from(['/', '/home/me', 'data', '../..', 'C x/é']), seed=st.integers(0, 9))
def test_a_file_keeps_its_side_when_others_come_and_the_folder_moves(files, prefix, seed):
    side = {f: random_splitter(Path('/data')/f[0]/f[1], seed=seed) for f in files}
    for f in sorted(files): assert random_splitter(f'{prefix}/{f[0]}/{f[1]}', seed=seed) is side[f]

def test_the_random_splitter_gives_about_its_share_and_tells_folders_apart():
    files = [f'{c}/{i}.jpg' for c in ('cat', 'dog') for i in range(2000)]
    for p in 0.1, 0.5: assert abs(np.mean([random_splitter(f, p) for f in files]) - p) < 0.025
    assert [random_splitter(f) for f in files[:2000]] != [random_splitter(f) for f in files[2000:]]
    sd = SplitData.split_by_func(ItemList(files), random_splitter)
    assert len(sd.train) + len(sd.valid) == 4000
    assert [random_splitter(f'cat/{i}.jpg', 0.5, 0) for i in range(12)] == SIDES   # in every version, on every machine

SIDES = [bool(int(o)) for o in '001010101100']

@pytest.mark.parametrize('p_valid', [-0.2, 0, 1, 1.5, 20])
def test_a_share_outside_of_zero_and_one_is_refused(p_valid):
    with pytest.raises(ValueError): SplitData.split_random(ItemList(range(10)), p_valid)

@pytest.mark.parametrize('f', [lambda o: True, lambda o: False, lambda o: None, lambda o: None if o else True])
def test_a_split_with_an_empty_side_is_a_sentence(f):
    with pytest.raises(ValueError, match=r'\d items? for training and \d for validation.*each side needs one'):
        SplitData.split_by_func(ItemList(range(5)), f)

def test_an_empty_side_made_by_hand_is_a_sentence_too():
    for train, valid in ([], None), ([], [1]), ([1], []):
        with pytest.raises(ValueError):
            sd = SplitData(ItemList(train), None if valid is None else ItemList(valid))
            label_by_func(sd, str).to_dls(1)

def test_what_is_on_neither_side_is_left_out():
    sd = SplitData.split_by_func(ItemList(range(9)), lambda o: None if o > 5 else np.bool_(o % 2))
    assert sd.train.items == [0, 2, 4] and sd.valid.items == [1, 3, 5] and 'train: ItemList: 3' in repr(sd)

def test_files_that_are_listed_validate():
    il = ItemList([Path('/d/a/1.jpg'), Path('/d/a/2.jpg'), Path('/d/b/1.jpg'), Path('/d/b/3.jpg')], '/d')
    valid = lambda *listed: [o.as_posix() for o in SplitData.split_by_files(il, listed).valid.items]
    for listed in ['2.jpg'], ['a/2.jpg'], [Path('/d/a/2.jpg')], ['a/2.jpg', './a/2.jpg']:
        assert valid(*listed) == ['/d/a/2.jpg']
    assert valid('b/1.jpg', '3.jpg') == ['/d/b/1.jpg', '/d/b/3.jpg']
    with pytest.raises(ValueError, match=r'1\.jpg names 2 of the 4 files.*relative to /d'): valid('1.jpg')
    with pytest.raises(ValueError, match=r'9\.jpg names 0'): valid('b/9.jpg')
    with pytest.raises(ValueError, match='each side'): valid()
    with pytest.raises(ValueError, match='each side'): valid('a/1.jpg', 'a/2.jpg', 'b/1.jpg', 'b/3.jpg')

def test_one_name_in_place_of_a_list_of_names_is_not_taken_for_its_letters():
    il = ItemList([Path('a.jpg'), Path('b.jpg')])
    try: assert SplitData.split_by_files(il, 'b.jpg').valid.items == [Path('b.jpg')]
    except (TypeError, ValueError) as e: assert 'list' in str(e)

@pytest.mark.parametrize('values', [
    [True, False, False], ['True', 'False', 'False'], [np.True_, np.False_, np.False_], [1, 0, 0],
    ['1', '0', '0'], [1., 0., 0.], ['1.0', '0.0', '0.0'], ['valid', 'train', 'train'],
    ['val', 'No', 'train'], [' Yes', 'no', 'NO']], ids=str)
def test_a_column_splits_by_what_people_write_into_it(values):
    sd = SplitData.split_by_col(ItemList('abc', table=dict(x=[0, 0, 0], v=values)), 'v')
    assert sd.valid.items == ['a'] and sd.train.items == ['b', 'c']
    assert SplitData.split_by_col(ItemList('abc', table=dict(x=[0, 0, 0], v=values)), 1).valid.items == ['a']

@pytest.mark.parametrize('value', [float('nan'), None, '', 'perhaps', 7], ids=str)
def test_a_value_that_names_no_side_is_refused_and_not_guessed(value):
    with pytest.raises(ValueError, match=f'value {value!r}'):
        SplitData.split_by_col(ItemList('abc', table=dict(v=[True, False, value])), 'v')

def test_test_rows_do_not_get_into_training():
    il = ItemList('abc', table=dict(v=['train', 'valid', 'test']))
    try: sd = SplitData.split_by_col(il, 'v')
    except ValueError as e: assert 'test' in str(e)
    else: assert 'c' not in sd.train.items

def test_a_column_that_is_not_there_is_a_sentence_with_those_that_are():
    il = ItemList('abc', table=dict(name=[1, 2, 3], label=[1, 2, 3]))
    for col in 'lable', 2, -3, None:
        with pytest.raises(ValueError, match=f'no column {col!r}.*name, label'): SplitData.split_by_col(il, col)
        with pytest.raises(ValueError, match=f'no column {col!r}.*name, label'): label_by_col(SplitData(il, il), col)
    assert label_by_col(SplitData(il, il), -1).train.y.tolist() == [0, 1, 2]


# ---- labels

def two_sides(train='aabc', valid='ab'): return SplitData(ItemList(train), ItemList(valid))

def test_labels_come_from_folders_and_patterns():
    assert parent_labeler('x/dog/1.jpg') == parent_labeler(Path('dog/1.jpg')) == 'dog'
    pets = regex_labeler(r'/([^/]+)_\d+\.jpg$')
    assert pets('images/great_dane_12.jpg') == pets(Path('/x/images/great_dane_7.jpg')) == 'great_dane'
    with pytest.raises(ValueError, match=r'images/Great\.png.*does not match.*pattern'): pets('images/Great.png')

def test_a_pattern_without_a_group_is_a_sentence():
    with pytest.raises(ValueError, match='group'):
        regex_labeler(r'\d+')('a/12.jpg')

def test_a_label_function_that_fails_names_the_item():
    with pytest.raises(KeyError) as e: label_by_func(two_sides(), dict(a=1, b=2).__getitem__)
    assert 'label of c' in told(e)
    with pytest.raises(AttributeError) as e:
        label_by_func(SplitData(ItemList(['cat_1', 'dog'])), lambda o: {'cat_1': 'x'}.get(o).upper())
    assert 'dog' in told(e)

@pytest.mark.parametrize('missing', [None, float('nan'), np.nan, np.float64('nan')],
                         ids=['None', 'nan', 'np.nan', 'np.float64'])
@pytest.mark.parametrize('side', ['train', 'valid'])
def test_a_missing_label_names_the_item(missing, side):
    sd = two_sides(valid='ab' if side == 'train' else 'ac')
    if side == 'valid': sd.train = ItemList('aab')
    with pytest.raises(ValueError, match='c has no label'): label_by_func(sd, lambda o: missing if o == 'c' else o)
    with pytest.raises(ValueError, match='c has no label'): label_by_func(sd, lambda o: missing if o == 'c' else 1.5)

def test_pandas_own_missing_value_is_a_missing_label():
    import pandas as pd
    for missing in pd.NA, pd.NaT:
        with pytest.raises(ValueError, match='c has no label'):
            label_by_func(two_sides(), lambda o: missing if o == 'c' else o)

def test_an_empty_cell_is_a_missing_label():
    with pytest.raises(ValueError, match='c has no label'): label_by_func(two_sides(), lambda o: '' if o == 'c' else o)
    ll = label_by_func(two_sides(), lambda o: '' if o == 'c' else o, proc_y=MultiCategoryProcessor())
    assert ll.train.y.tolist() == [[1, 0], [1, 0], [0, 1], [0, 0]]

def test_one_of_several_numbers_may_not_be_missing_either():
    with pytest.raises(ValueError) as e: label_by_func(two_sides(), lambda o: (1., float('nan') if o == 'c' else 2.))
    assert 'nan' in told(e) and re.search(r'\bc\b', told(e))
    for text in 'nan', 'inf':
        with pytest.raises(ValueError, match=text):
            label_by_func(two_sides(), lambda o: text if o == 'c' else '1', proc_y=RegressionProcessor)

@pytest.mark.parametrize('labels, kind', [
    ('ab', CategoryProcessor), ([1, 2], CategoryProcessor), ([True, False], CategoryProcessor),
    (np.array([1, 2]), CategoryProcessor), (np.array(['a', 'b']), CategoryProcessor),
    (np.array([True, False]), CategoryProcessor), (torch.tensor([1, 2]), CategoryProcessor),
    ([['a'], ['b', 'a']], MultiCategoryProcessor), ([{'a'}, {'b'}], MultiCategoryProcessor),
    ([('a',), ()], MultiCategoryProcessor), ([0.5, 1.5], RegressionProcessor),
    (np.array([0.5, 1]), RegressionProcessor),
    ([(1., 2.), (3., 4.)], RegressionProcessor), ([[1, 2], [3, 4]], RegressionProcessor),
    (np.eye(2), RegressionProcessor), (torch.eye(2), RegressionProcessor),
    (torch.tensor([1., 2.]), RegressionProcessor)], ids=str)
def test_the_labels_say_what_kind_of_target_is_meant(labels, kind):
    labels = list(labels)
    sd = SplitData(ItemList([0, 1]), ItemList([1]))
    ll = label_by_func(sd, lambda i: labels[i])
    assert type(ll.proc_y) is kind
    assert len(ll.train.y) == 2 and len(ll.valid.y) == 1
    json.dumps(tfm_spec(ll.proc_y)), repr(ll)
    dls_pipe = Pipe(ItemList([]), ll.proc_y)
    assert dls_pipe.spec['kwargs']['proc_y']['name'] == kind.__name__


def test_one_fraction_among_whole_numbers_makes_a_regression_whatever_the_seed():
    stars = [4, 4.5, 5, 3.5]*5
    kinds = {type(label_by_func(SplitData.split_random(ItemList(list(range(20))), seed=s), lambda i: stars[i]).proc_y)
             for s in range(6)}
    assert kinds == {RegressionProcessor}

def test_a_function_is_no_processor_since_it_knows_no_way_back():
    with pytest.raises(TypeError, match='way back from targets to labels'):
        label_by_func(two_sides(), str, proc_y=torch.tensor)


# ---- processors

ROWS = [st.lists(st.floats(-1e6, 1e6, width=32), min_size=k, max_size=k) for k in range(5)]
LABELS = st.lists(st.sampled_from(['cat', 'dog', 'Zürich', '猫', 'a b', '10', '9']), min_size=1, max_size=20)

@settings(max_examples=40)
@given(labels=LABELS)
def test_categories_round_trip(labels):
    p = CategoryProcessor()
    y = p(labels)
    assert y.dtype == torch.int64 and y.shape == (len(labels),) and [p.decode(t) for t in y] == labels
    assert p.vocab == sorted(set(labels)) and p.c_out == len(p.vocab)
    again = make_tfm(json.loads(json.dumps(tfm_spec(p))))
    assert again == p and torch.equal(again(labels), y)
    logits = F.one_hot(y, p.c_out).float()*9
    for label, t, row in zip(labels, y, logits):
        said = p.decode_pred(row)
        assert said.label == label and said.target == t and abs(said.probs.sum() - 1) < 1e-5

@settings(max_examples=40)
@given(labels=st.lists(st.sets(st.sampled_from(['cat', 'dog', 'é', '10'])), min_size=1, max_size=20),
       as_text=st.booleans(), sep=st.sampled_from(' ;|'))
def test_several_categories_round_trip(labels, as_text, sep):
    p = MultiCategoryProcessor(sep=sep)
    y = p([sep.join(o) if as_text else list(o) for o in labels])
    assert y.shape == (len(labels), len(set().union(*labels))) and [set(p.decode(t)) for t in y] == labels
    if p.c_out: assert y.dtype == torch.float32 and set(y.unique().tolist()) <= {0., 1.}
    again = make_tfm(json.loads(json.dumps(tfm_spec(p))))
    assert again == p
    for label, t in zip(labels, y):
        said = again.decode_pred(9*(2*t - 1))
        assert set(said.label) == label and torch.equal(said.target, t) and said.probs.shape == t.shape

@settings(max_examples=40)
@given(labels=st.integers(1, 4).flatmap(lambda k: st.lists(ROWS[k], min_size=1, max_size=9)))
def test_numbers_round_trip_in_the_shape_of_predictions(labels):
    p, k = RegressionProcessor(), len(labels[0])
    y = p([o[0] for o in labels] if k == 1 else labels)
    assert y.shape == (len(labels), k) and y.dtype == torch.float32 and p.c_out == k
    decoded = [p.decode(t) for t in y]
    assert decoded == ([o[0] for o in labels] if k == 1 else labels)
    assert [p.decode_pred(t).label for t in y] == decoded
    assert make_tfm(json.loads(json.dumps(tfm_spec(p)))) == p

def test_numbers_may_come_as_tuples_arrays_tensors_or_text():
    expected = [[1.5, -2]]
    for label in (1.5, -2), [1.5, -2], np.array([1.5, -2]), torch.tensor([1.5, -2]), ('1.5', '-2'):
        assert RegressionProcessor()([label]).tolist() == expected
    for label in 3, 3., '3', True + 2, np.float32(3), np.int64(3), torch.tensor(3.):
        assert RegressionProcessor()([label]).tolist() == [[3]]

@pytest.mark.parametrize('proc, labels, word', [
    (RegressionProcessor(), ['cat'], 'cat'), (RegressionProcessor(), [None], 'None'),
    (RegressionProcessor(), [{}], '{}'),
    (RegressionProcessor(), [((1, 2), (3, 4))], r'\(1, 2\)'), (RegressionProcessor(), [(1, 2), 3], '3.*has 1.*2'),
    (RegressionProcessor(2), [1.], '1.0'), (CategoryProcessor(), [1, 'a'], "'a'|1"),
    (CategoryProcessor(), [['a']], 'a'),
    (CategoryProcessor(['a']), ['b'], "'b'"), (CategoryProcessor(), ['a', None], 'None'),
    (MultiCategoryProcessor(), [1], '1'), (MultiCategoryProcessor(['a']), [['a', 'z']], "'z'"),
    (MultiCategoryProcessor(), [[1, 'a']], "'a'|1")], ids=str)
def test_labels_of_the_wrong_kind_are_a_sentence(proc, labels, word):
    with pytest.raises((ValueError, TypeError), match=word) as e: proc(labels)
    assert 'label' in str(e.value).lower()

def test_a_processor_learns_from_training_alone():
    ll = label_by_func(two_sides('abcb', 'cb'), str)
    assert ll.proc_y.vocab == ['a', 'b', 'c'] and ll.train.y.tolist() == [0, 1, 2, 1] and ll.valid.y.tolist() == [2, 1]
    ll = label_by_func(two_sides('abc', 'aa'), str)
    assert ll.proc_y.c_out == 3
    assert label_by_func(two_sides('ab', 'b'), lambda o: dict(a=(1., 2.), b=(3., 4.))[o]).valid.y.tolist() == [[3, 4]]

@pytest.mark.parametrize('proc_y', [None, MultiCategoryProcessor])
def test_a_class_that_only_validation_has_names_the_label_and_the_item(proc_y):
    sd = SplitData(ItemList(['x/cat/1.jpg', 'x/dog/2.jpg']), ItemList(['y/cat/3.jpg', 'y/emu/4.jpg']))
    with pytest.raises(ValueError, match="'emu'.*cat, dog") as e: label_by_func(sd, parent_labeler, proc_y=proc_y)
    assert 'y/emu/4.jpg' in told(e)

def test_a_long_vocabulary_is_not_written_out_in_an_error():
    with pytest.raises(ValueError, match=r'class9, \.\.\.') as e:
        CategoryProcessor([f'class{i}' for i in range(1000)])(['x'])
    assert len(told(e)) < 500

def test_a_vocabulary_may_be_handed_in():
    ll = label_by_func(two_sides('ab', 'c'), str, proc_y=CategoryProcessor(['c', 'b', 'a', 'z']))
    assert ll.train.y.tolist() == [2, 1] and ll.valid.y.tolist() == [0] and ll.to_dls(1).c_out == 4
    for vocab in ('b', 'a'), np.array(['b', 'a']):
        assert CategoryProcessor(vocab).decode(CategoryProcessor(vocab)(['a'])[0]) == 'a'
    p = MultiCategoryProcessor(['b', 'a'])
    assert p([['a'], ['b', 'a']]).tolist() == [[0, 1], [1, 1]]

def test_a_vocabulary_with_a_class_twice_is_refused():
    for kind in CategoryProcessor, MultiCategoryProcessor:
        with pytest.raises(ValueError, match='a'): kind(['a', 'b', 'a'])

def test_a_class_of_processors_may_be_given_in_place_of_one():
    assert label_by_func(two_sides(), str, proc_y=MultiCategoryProcessor).train.y.shape == (4, 3)
    assert label_by_func(two_sides('12', '1'), str, proc_y=RegressionProcessor).train.y.tolist() == [[1], [2]]

def test_the_threshold_of_several_categories_can_be_set():
    p = MultiCategoryProcessor(['a', 'b'], threshold=0.9)
    assert p.decode_pred(torch.tensor([1., 5.])).label == ['b'] and make_tfm(tfm_spec(p)).threshold == 0.9


# ---- tables

def table(folder, n=6):
    for i in range(n): plain(folder/f'im {i}.png', i)
    return dict(
        name=[f'im {i}' for i in range(n)], label=['cat' if i % 2 else 'dog' for i in range(n)],
        score=[i/2 for i in range(n)], tags=['a', 'a b', 'b', 'a b', 'a', 'b a'][:n],
        is_valid=[i > 3 for i in range(n)])

def from_table(folder, df, **how):
    return ImageDataLoaders.from_df(df, folder, **{'suffix': '.png', 'valid_col': 'is_valid', 'bs': 2, **how})
def targets(dl): return torch.cat([yb for _, yb in dl]).tolist()

@pytest.mark.parametrize('as_frame', [False, True])
def test_a_table_gives_batches(as_frame, tmp_path):
    df = table(tmp_path)
    if as_frame:
        import pandas as pd
        df = pd.DataFrame(df, index=range(100, 106))
    dls = from_table(tmp_path, df)
    assert dls.vocab == ['cat', 'dog'] and ids(dls.valid) == [[4, 5]] and targets(dls.valid) == [1, 0]
    assert sorted(sum(ids(dls.train), [])) == [0, 1, 2, 3]
    dls = from_table(tmp_path, df, label_col='score')
    assert targets(dls.valid) == [[2], [2.5]] and dls.c_out == 1 and dls.vocab is None
    dls = from_table(tmp_path, df, label_col='tags', label_sep=' ')
    assert dls.vocab == ['a', 'b'] and targets(dls.valid) == [[1, 0], [1, 1]]
    dls = from_table(tmp_path, df, label_col=2, fn_col=0, valid_col=-1,
                     proc_y=CategoryProcessor([o/2 for o in range(6)]))
    assert targets(dls.valid) == [4, 5]
    for cols in ['score', 'is_valid'], ('score', 'is_valid'), [2, 4]:
        assert targets(from_table(tmp_path, df, label_col=cols).valid) == [[2, 1], [2.5, 1]]
    dls = from_table(tmp_path, df, valid_col=None, p_valid=0.5, seed=3)
    assert len(dls.train.dataset) == len(dls.valid.dataset) == 3

def test_a_table_from_pandas_may_hold_numpy_numbers_and_categories(tmp_path):
    import pandas as pd
    df = pd.DataFrame(table(tmp_path))
    df['label'] = [1, 2, 1, 2, 1, 2]
    dls = from_table(tmp_path, df)
    assert dls.vocab == [1, 2] and targets(dls.valid) == [0, 1]
    df['label'] = pd.Categorical(['x', 'y']*3)
    assert from_table(tmp_path, df).vocab == ['x', 'y']
    df['label'] = pd.array([1, 2]*3, dtype='Int64')
    assert from_table(tmp_path, df).vocab == [1, 2]
    json.dumps(from_table(tmp_path, df).pipe.spec)

def test_missing_values_in_a_frame_name_the_file(tmp_path):
    import pandas as pd
    df = pd.DataFrame(table(tmp_path))
    df.loc[2, 'label'] = None
    with pytest.raises(ValueError, match=r'im 2\.png has no label'): from_table(tmp_path, df)
    df['label'] = pd.array([1, 2, 1, None, 1, 2], dtype='Int64')
    with pytest.raises(ValueError, match=r'im 3\.png has no label'): from_table(tmp_path, df)
    df.loc[1, 'score'] = float('nan')
    with pytest.raises(ValueError, match=r'im 1\.png'): from_table(tmp_path, df, label_col=['score', 'is_valid'])

def test_columns_of_different_lengths_are_a_sentence(tmp_path):
    df = table(tmp_path)
    df['label'] = df['label'][:2]
    with pytest.raises(ValueError, match='label|2'): from_table(tmp_path, df)
    with pytest.raises(ValueError): ItemList('abc', table=dict(x=[1]))

def test_a_table_that_lists_missing_files_counts_them_and_names_the_first(tmp_path):
    df = table(tmp_path)
    df['name'][1:3] = ['gone', 'lost']
    with pytest.raises(FileNotFoundError, match=r'2 files that are not there.*gone\.png.*path and suffix'):
        from_table(tmp_path, df)

def test_a_file_listed_twice_is_a_warning_that_names_it(tmp_path):
    df = table(tmp_path)
    df['name'][3] = 'im 1'
    with pytest.warns(UserWarning, match=r'1 rows?.*im 1\.png'): from_table(tmp_path, df)

def test_an_empty_table_is_a_sentence(tmp_path):
    for df in dict(name=[], label=[]), {}:
        with pytest.raises(ValueError, match='no rows|no column|empty'): ImageDataLoaders.from_df(df, tmp_path)

def csv_of(folder, text, name='labels.csv', encoding='utf-8'):
    (folder/name).write_bytes(text.encode(encoding))
    return folder

def test_a_csv_file_gives_batches(tmp_path):
    table(tmp_path)
    row = lambda i: f'im {i}.png,{["dog", "cat"][i % 2]},{i/2},{i*2},"{["b", "a b"][i % 2]}",{i > 3}'
    rows = '\r\n'.join(row(i) for i in range(6))
    csv_of(tmp_path, 'name,label,score,more,tags,valid\r\n' + rows + '\r\n', encoding='utf-8-sig')
    dls = ImageDataLoaders.from_csv(tmp_path, valid_col='valid', bs=2)
    assert dls.vocab == ['cat', 'dog'] and targets(dls.valid) == [1, 0] and ids(dls.valid) == [[4, 5]]
    dls = ImageDataLoaders.from_csv(tmp_path, fn_col='name', label_col='tags', label_sep=' ', valid_col=5)
    assert dls.vocab == ['a', 'b'] and targets(dls.valid) == [[0, 1], [1, 1]]
    dls = ImageDataLoaders.from_csv(tmp_path, label_col='score', valid_col='valid', proc_y=RegressionProcessor)
    assert targets(dls.valid) == [[2], [2.5]]
    il = ImageList.from_csv(tmp_path, tfms=Resize(4))
    assert len(il) == 6 and il.table['more'] == ['0', '2', '4', '6', '8', '10'] and il[0].shape == (3, 4, 4)

def test_several_columns_of_a_csv_file_are_several_numbers(tmp_path):
    table(tmp_path)
    csv_of(tmp_path, 'name,x,y,valid\n' + '\n'.join(f'im {i}.png,{i}.5,{-i},{i > 3}' for i in range(6)))
    dls = ImageDataLoaders.from_csv(tmp_path, label_col=['x', 'y'], valid_col='valid')
    assert targets(dls.valid) == [[4.5, -4], [5.5, -5]] and dls.c_out == 2

def test_quotes_line_breaks_and_other_delimiters_in_a_csv_file(tmp_path):
    csv_of(tmp_path, '\ufeffname;what\n"a;b";"say ""hi"""\n"two\nlines";é\n\n')
    assert read_csv(tmp_path/'labels.csv', ';') == dict(name=['a;b', 'two\nlines'], what=['say "hi"', 'é'])
    csv_of(tmp_path, 'name\twhat\na\t1,5')
    assert read_csv(tmp_path/'labels.csv', delimiter='\t') == dict(name=['a'], what=['1,5'])
    csv_of(tmp_path, 'name,what\n')
    assert read_csv(tmp_path/'labels.csv') == dict(name=[], what=[])

@pytest.mark.parametrize('text, line, has', [('a,b\n1,2\n3\n', 3, 1), ('a,b\n1,2,3\n', 2, 3), ('a,b\n\n\n1\n', 4, 1),
                                             ('a,b\n"x\ny",2\n3,4,5\n', 4, 3)])
def test_a_ragged_line_of_a_csv_file_is_counted_as_an_editor_counts(text, line, has, tmp_path):
    with pytest.raises(ValueError, match=fr'Line {line} of .*labels\.csv has {has} fields?.* 2'):
        read_csv(csv_of(tmp_path, text)/'labels.csv')

def test_csv_files_that_are_none_are_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match='labels.csv'): ImageDataLoaders.from_csv(tmp_path)
    with pytest.raises(ValueError, match='labels.csv.*(empty|header|columns)'):
        read_csv(csv_of(tmp_path, '')/'labels.csv')
    with pytest.raises(ValueError, match='labels.csv.*UTF-8'):
        read_csv(csv_of(tmp_path, 'name,é\n', encoding='latin-1')/'labels.csv')
    with pytest.raises(ValueError, match="twice|'?name"): read_csv(csv_of(tmp_path, 'name,name\na,b\n')/'labels.csv')

def test_a_csv_file_without_a_header_does_not_lose_its_first_picture(tmp_path):
    names = [Path(f).stem for f in table(tmp_path)['name']]
    csv_of(tmp_path, ''.join(f'{name}.png,x\n' for name in names))
    with pytest.raises(ValueError, match=r'im 0\.png is a file: give the table a header line'):
        ImageDataLoaders.from_csv(tmp_path)
    csv_of(tmp_path, ''.join(f'{name},x\n' for name in names))
    with pytest.raises(ValueError, match=r'im 0\.png is a file'): ImageList.from_csv(tmp_path, suffix='.png')
    (tmp_path/'0').touch()
    assert len(ImageList.from_df({0: ['0'], 1: ['x']}, tmp_path)) == 1      # columns without names

def test_a_wrong_delimiter_is_told_by_the_columns_that_are_there(tmp_path):
    table(tmp_path)
    csv_of(tmp_path, 'name;label\nim 0.png;x\n')
    with pytest.raises((ValueError, FileNotFoundError), match=r'name;label|im 0\.png;x'):
        ImageDataLoaders.from_csv(tmp_path)


# ---- one line for the practitioner

def test_the_imagenette_sample_in_one_line(imagenette):
    dls = ImageDataLoaders.from_folder(imagenette, tfms=Resize(32), bs=16)
    assert dls.c_in == 3 and dls.c_out == len(dls.vocab) == 10 and dls.vocab == sorted(dls.vocab)
    xb, yb = dls.one_batch()
    assert xb.shape == (16, 3, 32, 32) and xb.dtype == torch.float32 and 0 <= xb.min() and xb.max() <= 1
    assert yb.shape == (16,) and yb.dtype == torch.int64 and len(yb.unique()) > 3
    assert len(dls.train.dataset) == 1000 and len(dls.valid.dataset) == 300
    assert all(f.parts[-3] == 'train' for f in dls.train.dataset.x.items)
    assert all(f.parts[-3] == 'val' for f in dls.valid.dataset.x.items)
    for f, y in list(zip(dls.valid.dataset.x.items, dls.valid.dataset.y))[::50]: assert dls.vocab[y] == f.parent.name
    with pytest.raises(ValueError, match='3x.*Resize'): ImageDataLoaders.from_folder(imagenette).one_batch()
    gray = ImageDataLoaders.from_folder(imagenette, mode='L', tfms=[Resize((24, 32), 'squish')], p_valid=0.3)
    assert gray.c_in == 1 and gray.one_batch()[0].shape == (64, 1, 24, 32) and len(gray.valid.dataset) == 390

def test_the_pets_sample_in_one_line(pets):
    breed = lambda name: name.rsplit('_', 1)[0]
    dls = ImageDataLoaders.from_name_func(pets, get_files(pets/'images', '.jpg'), breed, tfms=Resize(24), bs=8)
    n = len(get_files(pets/'images', '.jpg'))
    assert len(dls.valid.dataset) == round(0.2*n) and len(dls.train.dataset) == n - round(0.2*n)
    assert dls.one_batch()[0].shape == (8, 3, 24, 24) and 'Abyssinian' in dls.vocab
    assert all(dls.vocab[y] == breed(f.name) for f, y in zip(dls.valid.dataset.x.items, dls.valid.dataset.y))
    again = ImageDataLoaders.from_name_func(pets, None, breed, tfms=Resize(24), bs=8)
    assert again.valid.dataset.x.items == dls.valid.dataset.x.items
    il = ImageList.from_files(pets, Resize(16))
    ll = label_by_func(SplitData.split_by_func(il, random_splitter), regex_labeler(r'/([^/]+)_\d+\.jpg$'))
    assert ll.to_dls(4).vocab == dls.vocab

def test_names_count_from_the_path(folder):
    fnames = [f'train/a/{i}.png' for i in (0, 2, 4, 6, 8)]
    label = lambda name: int(Path(name).stem) > 4
    dls = ImageDataLoaders.from_name_func(folder, fnames, label, p_valid=0.4, bs=3)
    assert sorted(sum(ids(dls.train) + ids(dls.valid), [])) == [0, 2, 4, 6, 8]
    absolute = ImageDataLoaders.from_name_func(folder, [str(folder/f) for f in fnames], label, p_valid=0.4, bs=3)
    assert ids(absolute.valid) == ids(dls.valid)
    dls = ImageDataLoaders.from_lists(folder, fnames, [0.5]*5, p_valid=0.4, bs=3)
    assert targets(dls.valid) == [[0.5]]*2

def test_lists_of_files_and_labels_in_one_line(folder):
    files = get_files(folder, '.png')
    dls = ImageDataLoaders.from_lists(folder, files, [f.stem for f in files], p_valid=3/15,
                                      proc_y=CategoryProcessor([str(i) for i in range(15)]))
    for xb, yb in [*dls.train, *dls.valid]: assert (xb[:, 0, 0, 0]*255).round().long().tolist() == yb.tolist()
    with pytest.raises(ValueError, match='15 files and 2 labels'): ImageDataLoaders.from_lists(folder, files, [1, 2])
    with pytest.raises(ValueError): ImageDataLoaders.from_lists(folder, [], [])
    dls = ImageDataLoaders.from_lists(folder, files, np.arange(15) % 2, p_valid=0.4)
    assert dls.vocab == [0, 1] and dls.one_batch()[1].dtype == torch.int64

def test_a_folder_may_be_called_val_or_anything(folder):
    expected = ids(loaders(folder).valid)
    (folder/'valid').rename(folder/'val')
    assert ids(loaders(folder).valid) == expected
    (folder/'val').rename(folder/'test'), (folder/'train').rename(folder/'learn')
    assert ids(loaders(folder, train_name='learn', valid_name='test').valid) == expected
    assert ids(loaders(str(folder), train_name='learn', valid_name='test').valid) == expected
    plain(folder/'extra/a/99.png', 99)
    assert 99 not in sum(ids(loaders(folder, train_name='learn', valid_name='test').train), [])
    assert 99 in sum(ids(loaders(folder, p_valid=0.1).train) + ids(loaders(folder, p_valid=0.1).valid), [])

def test_missing_folders_say_what_to_do(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='no folder .*nope'): loaders(tmp_path/'nope')
    with pytest.raises(ValueError, match='train.*p_valid|p_valid.*train'): loaders(folder/'train')
    (folder/'valid').rename(folder/'other')
    with pytest.raises(ValueError, match='valid.*p_valid|p_valid.*valid'): loaders(folder)
    (tmp_path/'empty/train').mkdir(parents=True), (tmp_path/'empty/valid').mkdir()
    with pytest.raises(ValueError, match='no files that end in'): loaders(tmp_path/'empty')
    plain(tmp_path/'empty/train/a/1.png', 1)
    with pytest.raises(ValueError, match='1 items? for training and 0 for validation'): loaders(tmp_path/'empty')

def test_a_class_folder_that_only_validation_has_is_named(folder):
    plain(folder/'valid/zebra/1.png', 1)
    with pytest.raises(ValueError, match="'zebra'") as e: loaders(folder)
    assert 'valid/zebra/1.png' in told(e)
    assert loaders(folder, proc_y=CategoryProcessor(['a', 'b', 'zebra'])).c_out == 3

def test_one_image_a_side_is_enough(tmp_path):
    plain(tmp_path/'train/a/1.png', 1), plain(tmp_path/'valid/a/2.png', 2)
    dls = loaders(tmp_path, num_workers=1, tfms=Stain())
    assert ids(dls.train) == [[1]] and ids(dls.valid) == [[2]] and dls.c_out == 1
    quiet(dls, tiny_net(3, 2)).fit(1)

def test_without_validation_there_is_a_training_loader_alone(folder):
    dls = label_by_func(SplitData(ImageList.from_files(folder, include='train')), parent_labeler).to_dls(4)
    assert dls.valid is None and len(batches(dls.train)) == 3
    assert quiet(dls).fit(1).recorder.values

@pytest.mark.parametrize('how, words', [(dict(bs=0), 'bs=0'), (dict(bs=12, drop_last=True), 'drop_last'),
                                        (dict(valid_bs=-1), 'bs=-1')])
def test_batches_that_cannot_be_are_refused_in_a_sentence(how, words, folder):
    with pytest.raises(ValueError, match=words): loaders(folder, **how)


# ---- loaders

def test_a_last_batch_may_be_short_or_left_out(folder):
    assert [len(b) for b in ids(loaders(folder, bs=5).train)] == [5, 5, 1]
    assert [len(b) for b in ids(loaders(folder, bs=5, drop_last=True).train)] == [5, 5]
    dls = loaders(folder, bs=5, drop_last=True, valid_bs=3)
    assert [len(b) for b in ids(dls.valid)] == [3, 1] and len(dls.train) == 2 and len(dls.valid) == 2
    assert ids(dls.valid) == [[12, 14, 11], [13]]

def test_bytes_travel_and_numbers_are_made_of_them_on_arrival(folder):
    dls = loaders(folder, num_workers=1, batch_tfms=Bright())
    raw = next(DataLoader.__iter__(dls.valid))
    assert raw[0].dtype == torch.uint8
    xb = next(iter(dls.valid))[0]
    assert xb.dtype == torch.float32 and torch.equal(xb, raw[0].float()/255 + 0.25)
    assert to_float(xb) is xb and type(next(iter(dls.valid))) is tuple

def chancy(folder, **how): return loaders(folder, [Stain()], batch_tfms=[Noise()], seed=5, **how)

def two_epochs(dls): return batches(dls.train) + batches(dls.train) + batches(dls.valid)

@pytest.mark.parametrize('how', [
    dict(num_workers=1), dict(num_workers=2), dict(num_workers=2, persistent_workers=False),
    dict(num_workers=2, prefetch_factor=1)], ids=str)
def test_any_number_of_workers_gives_the_same_batches(how, folder):
    assert same(two_epochs(chancy(folder)), two_epochs(chancy(folder, **how)))

def test_it_works_under_spawn_and_bad_files_are_named_there_too(folder):
    here, dls = chancy(folder), chancy(folder, num_workers=1, multiprocessing_context='spawn')
    assert same(batches(here.train) + batches(here.train), batches(dls.train) + batches(dls.train))
    cut(folder/'train/a/4.png')
    fails(dls.train, OSError, r'train/a/4\.png cannot be read as an image')

def test_chance_depends_on_seed_epoch_and_item_alone(folder):
    def stains(dls):
        "The numbers drawn for each item, by item, and those added to the batches."
        found = [(x[0, 0, 0], x[1, 0, 0]) for xb, _ in dls.train for x in xb]
        return {round(a.item()*255): round(b.item()*255) for a, b in found}
    def dls(seed=0, **how): return loaders(folder, [Stain()], seed=seed, **how)
    one = dls()
    first, second = stains(one), stains(one)
    assert set(first) == set(range(11)) and first != second
    assert len(set(first.values())) > 5 and sum(first[i] == second[i] for i in first) < 4
    assert stains(dls()) == first and stains(dls(bs=3)) == first
    assert stains(dls(bs=7, drop_last=True)).items() <= first.items()
    assert stains(dls(1)) != first
    other = dls()
    other.set_epoch(1)
    assert stains(other) == second

def test_the_order_changes_with_the_epoch_and_the_seed(folder):
    a, b, c = (loaders(folder, seed=s) for s in (0, 0, 1))
    first = ids(a.train)
    assert first == ids(b.train) != ids(c.train) and ids(a.train) != first and ids(a.valid) == ids(c.valid)

def test_batch_transforms_draw_anew_in_each_batch_and_epoch_and_again_for_the_same_seed(folder):
    for i in range(11): plain(folder/f'train/{"ab"[i%2]}/{i}.png', 0)
    def drawn(dls): return torch.cat([xb[:, 0, 0, 0] for xb, _ in dls.train]).tolist()
    dls = loaders(folder, batch_tfms=[Noise()])
    a, b = drawn(dls), drawn(dls)
    assert len(set(a + b)) == 22 and drawn(loaders(folder, batch_tfms=Noise())) == a
    assert not set(drawn(loaders(folder, batch_tfms=[Noise()], seed=1))) & set(a + b)

def test_training_has_chance_and_validation_and_test_have_none(folder):
    dls = chancy(folder)
    bare = loaders(folder)
    assert same(batches(dls.valid), batches(bare.valid)) and same(batches(dls.valid), batches(dls.valid))
    files = dls.valid.dataset.x.items
    assert torch.equal(torch.cat([b[0] for b in dls.test_dl(files)]), torch.cat([b[0] for b in bare.valid]))
    assert all((xb[:, 0] != xb[:, 1]).any() for xb, _ in dls.train)

def test_predictions_for_training_items_are_without_chance_and_in_order(folder):
    dls, bare = chancy(folder), loaders(folder)
    x = torch.cat([xb for xb, _ in dls.train.ordered()])
    expected = torch.stack([to_float(bare.train.dataset.x[i]) for i in range(11)])
    assert torch.equal(x, expected)
    preds, targ = quiet(dls).get_preds(dls.train)
    assert torch.equal(targ, dls.train.dataset.y) and torch.equal(preds, quiet(bare).get_preds(bare.train)[0])
    assert dls.train.dataset.train and same(batches(dls.train), batches(chancy(folder).train))

@pytest.mark.parametrize('num_workers', [0, 2])
def test_the_global_generators_are_left_alone(num_workers, folder):
    before = rng_states()
    dls = chancy(folder, num_workers=num_workers)
    dls.one_batch(), two_epochs(dls), [b for b in dls.test_dl(dls.valid.dataset.x.items, num_workers=num_workers)]
    dls.show_batch(n=2)
    assert rng_states() == before

@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_look_at_a_batch_does_not_use_up_the_epoch(num_workers, folder):
    expected = batches((here := chancy(folder)).train) + batches(here.train)
    dls = chancy(folder, num_workers=num_workers)
    assert same([dls.one_batch(), dls.one_batch()], [expected[0]]*2)
    assert same(batches(dls.train) + batches(dls.train), expected)
    dls.set_epoch(0, skip=2)
    assert same([dls.one_batch()], expected[2:3]) and same(batches(dls.train), expected[2:3])

@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_look_at_a_batch_within_an_epoch_does_not_disturb_it(num_workers, folder):
    expected = batches((here := chancy(folder, bs=2)).train) + batches(here.train)
    dls, seen = chancy(folder, bs=2, num_workers=num_workers), []
    for epoch in range(2):
        for i, batch in enumerate(dls.train):
            seen.append(batch)
            if i == 1: dls.one_batch(), [b for b in dls.valid]
    assert same(seen, expected)

@pytest.mark.parametrize('num_workers', [0, 2])
def test_validating_within_validation_does_not_disturb_it(num_workers, folder):
    class Look(Callback):
        def after_batch(self, learn):
            if learn.fitting and not learn.training and learn.iter == 0: learn.validate()
    run = lambda *cbs: quiet(loaders(folder, valid_bs=1, num_workers=num_workers), cbs=cbs).fit(2).recorder.values
    values = lambda rows: [{k: v for k, v in row.items() if k != 'time'} for row in rows]
    assert values(run()) == values(run(Look()))

@pytest.mark.parametrize('num_workers', [0, 2])
def test_a_resumed_epoch_gives_the_batches_that_were_left(num_workers, folder):
    dls = chancy(folder, bs=2)
    dls.set_epoch(3)
    whole = batches(dls.train)
    for skip in 1, 4, 6:
        dls = chancy(folder, bs=2, num_workers=num_workers)
        dls.set_epoch(3, skip)
        assert same(batches(dls.train), whole[skip:])

def test_skipped_items_are_not_opened(folder):
    opened = []
    class Counting(ImageList):
        def open(self, item):
            opened.append(item)
            return super().open(item)
    dls = label_by_func(SplitData(Counting.from_files(folder)), parent_labeler).to_dls(4)
    dls.set_epoch(0, skip=2)
    batches(dls.train)
    assert len(opened) == 15 - 8

def test_an_epoch_that_was_broken_off_is_over(folder):
    dls = chancy(folder, num_workers=1, bs=2)
    for batch in dls.train: break
    here = chancy(folder, bs=2)
    here.set_epoch(1)
    assert same(batches(dls.train), batches(here.train))

@pytest.mark.parametrize('num_workers', [0, 2])
def test_after_a_failed_batch_the_loader_can_go_on(num_workers, folder):
    cut(folder/'train/a/4.png')
    dls = chancy(folder, num_workers=num_workers)
    with pytest.raises(OSError): batches(dls.train)
    plain(folder/'train/a/4.png', 4)
    here = chancy(folder)
    here.set_epoch(1)
    assert same(batches(dls.train), batches(here.train))
    end_workers(dls.train)

def test_workers_end_with_their_loader(folder):
    before = set(multiprocessing.active_children())
    dls = chancy(folder, num_workers=2)
    batches(dls.train), dls.one_batch()
    assert len(set(multiprocessing.active_children()) - before) == 2
    del dls
    assert set(multiprocessing.active_children()) <= before

def test_loaders_can_be_copied_and_pickled_also_while_workers_live(folder):
    for num_workers in 0, 1:
        dls = chancy(folder, num_workers=num_workers)
        first = batches(dls.train)
        for again in copy.deepcopy(dls), pickle.loads(pickle.dumps(dls)):
            again.set_epoch(0)
            assert same(batches(again.train), first)

class Interrupt(Callback):
    def after_batch(self, learn):
        if learn.training and learn.iter == 1: raise KeyboardInterrupt

def test_ctrl_c_leaves_loaders_with_workers_that_can_go_on(folder):
    learn = quiet(chancy(folder, num_workers=2, bs=2))
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Interrupt())
    assert not learn.fitting
    learn.fit(1)
    assert len(learn.recorder.values) and same(batches(learn.dls.valid), batches(chancy(folder, bs=2).valid))

def test_a_worker_that_is_interrupted_is_an_error_and_not_the_end_of_an_epoch(folder):
    fails(loaders(folder, interrupted).train, KeyboardInterrupt)
    fails(loaders(folder, interrupted, num_workers=1, timeout=1).train, RuntimeError, 'worker')

def test_what_the_loader_is_given_goes_to_torchs(folder):
    dls = loaders(folder, num_workers=1, prefetch_factor=3, timeout=20, persistent_workers=False)
    assert (dls.train.prefetch_factor, dls.valid.timeout, dls.train.persistent_workers) == (3, 20, False)
    assert isinstance(dls.train, BatchLoader) and isinstance(dls.train.dataset, LabeledData)
    assert dls.train.pin_memory is torch.cuda.is_available()


# ---- the pipe

def test_batches_are_decoded_into_pictures_and_labels(folder):
    dls = loaders(folder, batch_tfms=[Bright(), Normalize([0.5]*3, [0.2]*3)])
    xb, yb = next(iter(dls.valid))
    decoded = dls.decode((xb, yb))
    assert [label for _, label in decoded] == ['a', 'a', 'b', 'b'] and len(dls.decode((xb, yb), n=2)) == 2
    for i, (x, _) in zip([12, 14, 11, 13], decoded): torch.testing.assert_close(x, torch.full((3, 8, 8), i/255))
    assert [label for _, label in dls.decode((xb,))] == [None]*4

@pytest.mark.parametrize('bs', [1, 2, 3])
def test_a_lone_input_is_decoded_as_a_batch_without_labels(bs, folder):
    xb = torch.rand(bs, 3, 8, 8)
    decoded = loaders(folder).decode(xb)
    assert len(decoded) == bs and all(torch.equal(x, o) and label is None for (x, label), o in zip(decoded, xb))

def drawn():
    "Titles of the pictures drawn since the last call."
    import matplotlib.pyplot as plt
    axes = [ax for n in plt.get_fignums() for ax in plt.figure(n).axes]
    titles = [ax.get_title() for ax in axes if ax.images]
    plt.close('all')
    return titles

def test_batches_are_drawn_with_their_labels(folder):
    drawn()
    dls = loaders(folder, valid_bs=4, batch_tfms=Normalize([0.5]*3, [0.2]*3))
    dls.show_batch()
    assert sorted(set(drawn())) == ['a', 'b']
    dls.show_batch(n=2)
    assert len(drawn()) == 2
    loaders(folder, mode='L').show_batch(n=1)
    assert len(drawn()) == 1
    batch = next(iter(dls.test_dl(dls.valid.dataset.x.items)))
    dls.pipe.show_batch(batch, n=3)
    assert drawn() == ['']*3
    learn = quiet(dls)
    learn.show_results(n=3)
    titles = drawn()
    assert [t.split('\n')[0] for t in titles] == ['a', 'a', 'b'] and all(len(t.split('\n')) == 2 for t in titles)

def test_numbers_and_several_classes_are_drawn_too(tmp_path):
    drawn()
    df = table(tmp_path)
    for how, n_out, loss in ((dict(label_col='score'), 1, F.mse_loss),
                             (dict(label_col=['score', 'is_valid']), 2, F.mse_loss),
                             (dict(label_col='tags', label_sep=' '), 2, F.binary_cross_entropy_with_logits)):
        dls = from_table(tmp_path, df, **how)
        learn = quiet(dls, tiny_net(3, n_out), loss_func=loss, metrics=[]).fit(1)
        dls.show_batch(), learn.show_results()
        titles = drawn()
        assert len(titles) == 4 and all(titles)
        said = learn.predict(tmp_path/'im 1.png')
        assert isinstance(said.label, (float, list)) and said.target.shape == (dls.c_out,)
        assert dls.pipe.loss_func is loss

def test_new_items_may_be_paths_texts_images_arrays_and_tensors(folder):
    dls = loaders(folder, [Stain(), Resize(8)], batch_tfms=Noise())
    path = folder/'valid/a/12.png'
    items = [path, str(path), Image.open(path), np.array(Image.open(path)),
             torch.full((3, 8, 8), 12, dtype=torch.uint8)]
    xb, = next(iter(dls.test_dl(items)))
    assert torch.equal(xb, torch.full((5, 3, 8, 8), 12/255)) and xb.dtype == torch.float32
    assert [len(b[0]) for b in dls.test_dl(items, bs=2)] == [2, 2, 1]
    assert [len(b[0]) for b in dls.test_dl(iter(items), bs=2, num_workers=1)] == [2, 2, 1]

def test_new_items_may_be_a_column_of_a_table_and_a_table_is_asked_for_its_column(folder):
    pd = pytest.importorskip('pandas')
    dls, files = loaders(folder, tfms=Resize(8)), [str(f) for f in sorted((folder/'valid/a').iterdir())[:2]]
    df = pd.DataFrame(dict(name=files, other=[1, 2]))
    columns = [df['name'], df['name'].values, np.array(files), df['name'].map(Path), df['name'].map(Path).values]
    batches = [next(iter(dls.test_dl(c)))[0] for c in columns]
    for xb in batches: assert torch.equal(xb, batches[0]) and len(xb) == 2
    for table in df, dict(name=files):
        with pytest.raises(TypeError, match='give the column'): dls.test_dl(table)
    with pytest.raises(TypeError, match='list of items'): dls.test_dl(pixels())

def test_no_items_are_refused_in_a_sentence(folder):
    with pytest.raises(ValueError, match='no items'): loaders(folder).test_dl([])

def test_one_path_in_place_of_a_list_is_not_taken_for_its_letters(folder):
    dls = loaders(folder)
    for item in folder/'valid/a/12.png', str(folder/'valid/a/12.png'):
        try: assert ids([(*b, 0) for b in dls.test_dl(item)]) == [[12]]
        except (TypeError, ValueError) as e: assert 'list' in str(e)

def test_an_item_list_gives_its_items_and_not_what_it_makes_of_them(folder):
    dls = loaders(folder, Resize(6))
    other = ImageList.from_files(folder, [invert], include='valid')
    xb, = next(iter(dls.test_dl(other)))
    assert xb.shape == (4, 3, 6, 6) and xb.max() < 0.1

def test_statistics_come_from_training_without_chance_and_do_not_use_up_an_epoch(folder):
    dls = loaders(folder, [Stain()])
    norm = Normalize.from_dl(loaders(folder).train)
    values = torch.arange(11)/255
    torch.testing.assert_close(torch.tensor(norm.mean), values.mean().expand(3))
    torch.testing.assert_close(torch.tensor(norm.std), values.std(correction=0).expand(3))
    Normalize.from_dl(dls.train), Normalize.from_dl(dls.train, n_batches=1)
    assert ids(dls.train) == ids(loaders(folder).train)
    xb = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(norm.decode(norm(xb)), xb)
    assert make_tfm(json.loads(json.dumps(tfm_spec(norm)))) == norm

def test_normalizing_other_channels_than_there_are_is_a_sentence():
    with pytest.raises(ValueError, match='3.*1|1.*3'): Normalize([0.5]*3, [0.2]*3)(torch.zeros(2, 1, 4, 4))
    for mean, std in ([0.5], [0.]), ([0.5]*3, [0.2]), ([0.5], [float('nan')]):
        with pytest.raises(ValueError, match='mean and a positive std'): Normalize(mean, std)


# ---- with the Learner

def test_a_learner_trains_predicts_and_shows_on_the_sample(imagenette):
    "Fish and churches, say: two classes of the sample."
    classes = sorted(p.name for p in (imagenette/'train').iterdir())[:2]
    il = ImageList(get_files(imagenette, '.JPEG'), imagenette, [Resize(24), Stain(256)], valid_tfms=Resize(24))
    il = il[[i for i, f in enumerate(il.items) if f.parent.name in classes][::3]]
    sd = SplitData.split_by_func(il, lambda f: grandparent_splitter(f, valid_name='val'))
    dls = label_by_func(sd, parent_labeler).to_dls(16, batch_tfms=Normalize([0.5]*3, [0.25]*3))
    learn = quiet(dls).fit(2)
    assert dls.train.device == dls.valid.device == torch.device('cpu')
    preds, targ = learn.get_preds()
    assert torch.equal(targ, dls.valid.dataset.y) and preds.shape == (len(targ), 2)
    test_preds, none = learn.get_preds(dls.test_dl(sd.valid.items, bs=5))
    assert none is None
    torch.testing.assert_close(test_preds, preds)
    said = learn.predict(sd.valid.items[3])
    assert said.label == dls.vocab[preds[3].argmax()] and said.target == preds[3].argmax()
    torch.testing.assert_close(said.probs, preds[3].softmax(0))
    assert learn.predict(Image.open(sd.valid.items[3])).label == said.label

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_batch_transforms_run_on_the_learners_device(folder):
    class Where(Callback):
        def before_batch(self, learn): assert learn.xb.device.type == 'cuda' and learn.xb.dtype == torch.float32
    learn = quiet(chancy(folder, num_workers=2), device='cuda', cbs=Where()).fit(1)
    assert learn.dls.train.device.type == learn.dls.valid.device.type == 'cuda'
    assert learn.dls.one_batch()[0].device.type == 'cuda'
    learn.dls.show_batch(), learn.predict(folder/'valid/a/12.png')

class Stop(Callback):
    order = 99
    def __init__(self, epoch, i): self.at = epoch, i
    def after_batch(self, learn):
        if learn.training and (learn.epoch, learn.iter) == self.at: raise RuntimeError('power cut')

@pytest.mark.parametrize('num_workers, at', [(0, (0, 1)), (0, (1, 0)), (0, (1, 4)), (2, (1, 2))])
def test_a_run_that_was_stopped_within_an_epoch_goes_on_to_the_same_weights(num_workers, at, folder, tmp_path):
    make = lambda *cbs: quiet(chancy(folder, bs=2, num_workers=num_workers), cbs=cbs)
    whole = quiet(chancy(folder, bs=2)).fit(2)
    with pytest.raises(RuntimeError, match='power cut'): make(Checkpoint(tmp_path/'c', every=1), Stop(*at)).fit(2)
    again = make(Checkpoint(tmp_path/'c', every=1)).fit(resume=tmp_path/'c')
    for a, b in zip(whole.model.state_dict().values(), again.model.state_dict().values()): assert torch.equal(a, b)
    assert whole.recorder.losses == again.recorder.losses

def test_a_learner_with_workers_can_be_copied(folder):
    learn = quiet(chancy(folder, num_workers=1)).fit(1)
    again = copy.deepcopy(learn)
    assert torch.equal(again.get_preds()[0], learn.get_preds()[0])


# ---- export

def exported(folder, path, **how):
    dls = loaders(folder, [invert, Stain(), Resize((6, 5), 'squish')],
                  batch_tfms=[Noise(), Bright(0.5), Normalize([0.5]*3, [0.2]*3)], **how)
    learn = quiet(dls, tiny_net(dls.c_in, dls.c_out)).fit(1)
    learn.export(path)
    return learn

READ = '''
import json, sys
sys.path.insert(0, {tests!r})
import test_data, torch
from minidl.learner import load_learner
learn = load_learner({path!r}, device='cpu')
files = json.loads({files!r})
preds = learn.get_preds(learn.dls.test_dl(files))[0]
said = learn.predict(files[0])
torch.save(preds, {out!r})
dls = learn.dls
tfms = repr(dls.pipe.items.tfms)
print(json.dumps(dict(vocab=dls.vocab, c_in=dls.c_in, c_out=dls.c_out, label=said.label, tfms=tfms)))
'''

def test_an_exported_learner_predicts_the_same_in_a_fresh_process(folder, tmp_path):
    learn = exported(folder, tmp_path/'m')
    files = [str(f) for f in learn.dls.valid.dataset.x.items]
    code = READ.format(tests=str(Path(__file__).parent), path=str(tmp_path/'m'), files=json.dumps(files),
                       out=str(tmp_path/'preds'))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said['vocab'], said['c_in'], said['c_out']) == (['a', 'b'], 3, 2) and 'Resize' in said['tfms']
    torch.testing.assert_close(torch.load(tmp_path/'preds', weights_only=True), learn.get_preds()[0])
    assert said['label'] == learn.predict(files[0]).label

def test_what_was_exported_can_be_exported_again(folder, tmp_path):
    learn = exported(folder, tmp_path/'m', mode='RGB', valid_tfms=[Resize(6)])
    again = load_learner(tmp_path/'m', device='cpu')
    again.export(tmp_path/'n')
    third, path = load_learner(tmp_path/'n', device='cpu'), folder/'valid/b/11.png'
    for one in again, third: torch.testing.assert_close(one.predict(path).probs, learn.predict(path).probs)
    assert third.dls.pipe.items.tfms == [Resize(6)] and third.dls.pipe.spec == again.dls.pipe.spec
    with pytest.raises(ValueError): third.dls.one_batch()
    with pytest.raises(FileNotFoundError, match='gone'): third.predict('gone.png')

@pytest.mark.parametrize('how', [
    dict(label_col='score'), dict(label_col=['score', 'is_valid']), dict(label_col='tags', label_sep=' '),
    dict(mode='L')], ids=str)
def test_learners_of_every_kind_of_label_are_exported(how, tmp_path):
    dls = from_table(tmp_path, table(tmp_path), **how)
    learn = quiet(dls, tiny_net(dls.c_in, dls.c_out))
    learn.export(tmp_path/'m')
    again = load_learner(tmp_path/'m', device='cpu')
    a, b = (o.predict(tmp_path/'im 3.png') for o in (learn, again))
    assert str(a.label) == str(b.label) and again.dls.vocab == dls.vocab and again.dls.c_in == dls.c_in
    torch.testing.assert_close(a.probs, b.probs)

def test_a_pipe_of_plain_items_can_be_exported_too(tmp_path):
    sd = SplitData.split_by_func(ItemList([1., 2., 3.], tfms=to_row), lambda o: o > 2)
    dls = label_by_func(sd, lambda o: 'big' if o > 1 else 'small').to_dls(2)
    model = tiny_linear()
    quiet(dls, model).export(tmp_path/'m')
    assert load_learner(tmp_path/'m', device='cpu').predict(2.).label in ('big', 'small')

def test_batch_transforms_that_also_act_without_chance_are_exported(folder, tmp_path):
    dls = loaders(folder, tfms=Resize(8), batch_tfms=[Corner(3), Noise()])
    learn, path = quiet(dls, tiny_net(dls.c_in, dls.c_out)).fit(1), folder/'valid/b/11.png'
    learn.export(tmp_path/'m')
    again = load_learner(tmp_path/'m', device='cpu')
    assert again.dls.pipe.batch_tfms == [to_float, Corner(3), Noise()]
    assert next(iter(again.dls.test_dl([path])))[0].shape == (1, 3, 3, 3)
    torch.testing.assert_close(again.predict(path).probs, learn.predict(path).probs)

@register_tfm
@dataclass
class Corner:
    "A part of `size` pixels at a random place; the upper left corner without chance."
    size:int
    def __call__(self, xb, generator=None):
        i = 0 if generator is None else int(torch.randint(xb.shape[-1] - self.size, (1,), generator=generator))
        return xb[..., i:i+self.size, i:i+self.size]

@register_tfm
def to_row(x): return torch.tensor([x])

@register
def tiny_linear(): return nn.Linear(1, 2)

@dataclass
class Unknown:
    def __call__(self, x): return x

@pytest.mark.parametrize('how', [
    dict(tfms=lambda img: img), dict(tfms=Unknown()), dict(tfms=functools.partial(to_rgb)),
    dict(batch_tfms=lambda xb: xb), dict(batch_tfms=Unknown())],
    ids=['lambda', 'unregistered', 'partial', 'batch lambda', 'unregistered batch'])
def test_what_could_not_be_made_again_is_an_error_at_export(how, folder, tmp_path):
    dls = loaders(folder, **how)
    learn = quiet(dls)
    learn.validate()
    with pytest.raises(TypeError, match='not registered.*register_tfm'): learn.export(tmp_path/'m')
    assert not (tmp_path/'m').exists()
    if 'tfms' in how:
        quiet(loaders(folder, **how, valid_tfms=Resize(8))).export(tmp_path/'m')   # only training has it
        assert load_learner(tmp_path/'m', device='cpu').dls.pipe.items.tfms == [Resize(8)]

def test_a_setting_that_json_cannot_hold_is_an_error_at_export(folder, tmp_path):
    with pytest.raises(TypeError, match='JSON|plain'):
        quiet(loaders(folder, batch_tfms=Bright(torch.tensor(1.)))).export(tmp_path/'m')

def test_a_transform_or_a_kind_of_items_that_is_not_known_at_load_is_a_sentence():
    with pytest.raises(ValueError, match="'Nowhere'.*import"): make_tfm(dict(name='Nowhere', settings={}))
    spec = Pipe(ImageList([])).spec
    spec['kwargs']['kind'] = 'NoImages'
    with pytest.raises(ValueError, match='NoImages'): make_tfm(dict(name='make_pipe', settings=None))(**spec['kwargs'])

def test_the_transforms_of_the_library_are_registered():
    for f in (to_rgb, to_tensor, to_float, Resize(3), Normalize([0.5], [0.5]), CategoryProcessor(['a']),
              MultiCategoryProcessor(), RegressionProcessor(2)):
        assert make_tfm(json.loads(json.dumps(tfm_spec(f)))) == f
