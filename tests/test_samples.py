"The embedded samples: made anew they are the same bytes, they are small, and they are worth learning on."
import gzip, hashlib, io, re, sys, tarfile, zlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

DATA = Path(__file__).resolve().parent.parent/'data'
SAMPLES = DATA/'samples'
IDX_KINDS = 'images-idx3', 'labels-idx1'
sys.path.insert(0, str(DATA))

import draw_garments, draw_objects, make_samples  # noqa: E402


def committed_sums():
    lines = (SAMPLES/'SHA256SUMS').read_text().splitlines()
    return {name: digest for digest, name in (line.split('  ') for line in lines)}


def digests(folder):
    files = [p for p in folder.rglob('*') if p.is_file() and p.name != 'SHA256SUMS']
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# The same bytes

def why_bytes_may_differ():
    "Byte identity is promised for the pinned versions; what differs here, as a sentence, or None."
    pins = dict(re.findall(r'^(pillow|numpy|matplotlib)==(\S+)', (DATA.parent/'constraints.txt').read_text(), re.M))
    for name, pinned in pins.items():
        if version(name) != pinned:
            return f'the samples are byte for byte the same with {name} {pinned}; installed is {version(name)}'
    if 'ng' in zlib.ZLIB_RUNTIME_VERSION:
        return 'the samples are packed by zlib; this Python has zlib-ng, which packs the same data into other bytes'


same_bytes = pytest.mark.skipif(why_bytes_may_differ() is not None, reason=why_bytes_may_differ() or '')


@same_bytes
def test_samples_made_anew_have_the_committed_digests(tmp_path):
    "The cheap ones wholly; a slice of the other two is in the next tests. `python data/make_samples.py` makes all."
    make_samples.make_samples(tmp_path, ['mnist', 'pets', 'imdb', 'wikitext'])
    made, committed = digests(tmp_path), committed_sums()
    assert len(made) == 7
    assert made == {name: committed[name] for name in made}


@same_bytes
def test_garments_drawn_anew_are_the_committed_ones():
    "Every garment has its own seed, so a few of them drawn alone must come out as among all."
    for part, (name, n) in enumerate((('train', 6000), ('t10k', 1000))):
        images, labels = (read_idx(SAMPLES/f'fashion_mnist/{name}-{kind}-ubyte.gz') for kind in IDX_KINDS)
        assert images.shape == (n, 28, 28) and (np.bincount(labels) == n//10).all()
        for i in range(0, n, 20): assert (draw_garments.garment(i, labels[i], part) == images[i]).all()


@same_bytes
def test_objects_drawn_anew_are_the_committed_ones():
    files = read_tgz(SAMPLES/'imagenette.tgz')
    assert len(files) == 1300
    for p, part in enumerate(('train', 'val')):
        for c, wnid in enumerate(draw_objects.OBJECTS):
            for i in range(7, 29, 7):
                name, im = draw_objects.photograph(wnid, i, p)
                buf = io.BytesIO()
                draw_objects.save_jpeg(im, buf)
                assert files[f'imagenette/{part}/{wnid}/{name}'] == buf.getvalue()


def test_every_committed_file_is_in_the_list_of_digests_and_has_its_digest():
    assert digests(SAMPLES) == committed_sums()


def test_all_samples_together_are_at_most_8_megabytes():
    assert sum(p.stat().st_size for p in SAMPLES.rglob('*') if p.is_file()) <= 8e6


# Worth learning on, measured with plain PyTorch

@pytest.fixture(scope='module', autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def read_idx(path):
    b = gzip.open(path).read()
    rank = b[3]
    return np.frombuffer(b, np.uint8, offset=4 + 4*rank).reshape(np.frombuffer(b, '>i4', rank, 4))


def read_tgz(path):
    with tarfile.open(path) as tar: return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}


def small_images(files):
    "JPEG bytes to normalized tensors of 64 by 64, (n, 3, 64, 64)."
    ims = [Image.open(io.BytesIO(b)).convert('RGB').resize((64, 64), Image.Resampling.BILINEAR) for b in files]
    x = np.stack([np.asarray(im) for im in ims])
    return (torch.tensor(x).permute(0, 3, 1, 2).float()/255 - 0.45)/0.25


def train(model, x, y, epochs, lr, bs=64):
    opt = torch.optim.AdamW(model.parameters(), lr)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=epochs*-(-len(x)//bs))
    model.train()
    for _ in range(epochs):
        for i in torch.randperm(len(x)).split(bs):
            F.cross_entropy(model(x[i]), y[i]).backward()
            opt.step()
            opt.zero_grad()
            sched.step()
    return model.eval()


@torch.no_grad()
def accuracy(model, x, y): return (model(x).argmax(1) == y).float().mean().item()


def conv(ni, nf): return nn.Sequential(nn.Conv2d(ni, nf, 3, 2, 1, bias=False), nn.BatchNorm2d(nf), nn.ReLU())


def mnist_models():
    return {'linear': (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 10, 5e-3),
            'mlp': (nn.Sequential(nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 10)), 8, 5e-3),
            'cnn': (nn.Sequential(nn.Unflatten(1, (1, 28)), conv(1, 16), conv(16, 32), conv(32, 64),
                                  nn.Flatten(), nn.Linear(64*4*4, 10)), 5, 1e-2)}


def load_idx(name):
    parts = [read_idx(SAMPLES/name/f'{part}-{kind}-ubyte.gz') for part in ('train', 't10k') for kind in IDX_KINDS]
    return [torch.tensor(a).float()/255 if a.ndim == 3 else torch.tensor(a).long() for a in parts]


@pytest.fixture(scope='module')
def scores():
    "Accuracy of three models on the digits and on the garments."
    res = {}
    for data in ('mnist', 'fashion_mnist'):
        x, y, xv, yv = load_idx(data)
        torch.manual_seed(0)
        for name, (model, epochs, lr) in mnist_models().items():
            res[data, name] = accuracy(train(model, x, y, epochs, lr), xv, yv)
    return res


def test_on_mnist_a_linear_model_an_mlp_and_a_cnn_come_out_in_that_order(scores):
    linear, mlp, cnn = (scores['mnist', m] for m in ('linear', 'mlp', 'cnn'))
    assert 0.80 < linear < 0.93
    assert linear + 0.01 < mlp < cnn - 0.01
    assert cnn > 0.97


def test_garments_are_harder_than_digits_for_every_model_and_a_cnn_is_best(scores):
    for m in ('linear', 'mlp', 'cnn'): assert scores['fashion_mnist', m] < scores['mnist', m] - 0.01
    assert scores['fashion_mnist', 'linear'] > 0.7
    assert scores['fashion_mnist', 'cnn'] > scores['fashion_mnist', 'mlp'] + 0.01


def test_on_3s_and_7s_the_mean_digit_is_a_fair_guess_and_a_linear_model_a_better_one():
    x, y, xv, yv = load_idx('mnist')
    keep, keepv = (y == 3) | (y == 7), (yv == 3) | (yv == 7)
    x, y, xv, yv = x[keep], (y[keep] == 7).long(), xv[keepv], (yv[keepv] == 7).long()
    to_mean = torch.stack([(xv - x[y == c].mean(0)).abs().mean((1, 2)) for c in (0, 1)], 1)  # (n, 2)
    baseline = (to_mean.argmin(1) == yv).float().mean().item()
    assert 0.85 < baseline < 0.97
    torch.manual_seed(0)
    assert accuracy(train(nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), x, y, 10, 5e-3), xv, yv) > baseline + 0.02


@pytest.fixture(scope='module')
def objects():
    "Images and labels of the imagenette sample, training and validation."
    files = read_tgz(SAMPLES/'imagenette.tgz')
    names = sorted(files)
    x = small_images([files[n] for n in names])
    y = torch.tensor([list(draw_objects.OBJECTS).index(n.split('/')[2]) for n in names])
    train_part = torch.tensor(['/train/' in n for n in names])
    return x[train_part], y[train_part], x[~train_part], y[~train_part]


def image_cnn():
    return nn.Sequential(conv(3, 16), conv(16, 32), conv(32, 64), conv(64, 128),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


@pytest.fixture(scope='module')
def object_cnn(objects):
    x, y, _, _ = objects
    torch.manual_seed(0)
    return train(image_cnn(), torch.cat([x, x.flip(-1)]), torch.cat([y, y]), 6, 8e-3, bs=32)


def test_the_mean_color_says_little_about_the_object(objects):
    x, y, xv, yv = objects
    x, xv = x.mean((2, 3)), xv.mean((2, 3))  # (n, 3)
    for k in (1, 5, 15):
        votes = F.one_hot(y[torch.cdist(xv, x).topk(k, largest=False).indices], 10).sum(1)
        assert (votes.argmax(1) == yv).float().mean() < 0.3
    torch.manual_seed(0)
    for model in (nn.Linear(3, 10), nn.Sequential(nn.Linear(3, 50), nn.ReLU(), nn.Linear(50, 10))):
        assert accuracy(train(model, x, y, 30, 1e-2), xv, yv) < 0.3


def test_a_small_cnn_learns_the_objects(objects, object_cnn):
    _, _, xv, yv = objects
    assert accuracy(object_cnn, xv, yv) > 0.6


def test_some_training_objects_are_gray_files_and_sizes_differ():
    files = read_tgz(SAMPLES/'imagenette.tgz')
    shapes = [(im.mode, im.size) for im in (Image.open(io.BytesIO(b)) for n, b in files.items() if '/train/' in n)]
    assert {mode for mode, _ in shapes} == {'RGB', 'L'}
    assert len({size for _, size in shapes}) > 100
    assert all(128 <= min(size) <= 160 for _, size in shapes)


def test_what_was_learned_on_objects_helps_with_pets(object_cnn):
    files = read_tgz(SAMPLES/'pets.tgz')
    names = sorted(files, key=lambda n: int(re.search(r'_(\d+)\.jpg$', n)[1]))
    breeds = [re.search(r'([^/]*)_\d+\.jpg$', n)[1] for n in names]
    classes = sorted(set(breeds))
    x, y = small_images([files[n] for n in names]), torch.tensor([classes.index(b) for b in breeds])
    half = len(x)//2
    acc = []
    for body in (image_cnn(), object_cnn):
        torch.manual_seed(0)
        model = nn.Sequential(*body[:-1], nn.Linear(128, len(classes)))
        acc.append(accuracy(train(model, x[:half], y[:half], 10, 4e-3, bs=16), x[half:], y[half:]))
    scratch, transferred = acc
    assert len(classes) == 8
    assert transferred > scratch + 0.08
