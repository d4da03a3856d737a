"Checks of the exercises of chapter 08."
import math
import random
import tempfile
import wave
from dataclasses import fields, is_dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from .core import Wrong, exercise, expect, raises, same


def untouched(f, *args, **kwargs):
    "What `f` gives, if it has left the global generators alone."
    import numpy as np
    def states(): return random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[2]
    before = states()
    out = f(*args, **kwargs)
    if states() != before:
        raise Wrong('a global generator is drawn from, or seeded anew; whoever else uses it will notice')
    return out


@exercise('08.1', hints=[
    'Gather the positions of each class, and choose among them.',
    'A `random.Random(seed)` of your own has a method `sample`, which draws without repeating.',
    'A set of strings has another order in every process. A seed promises the same choice everywhere, so go through '
    'the classes in an order that does not change.'])
def stratified_splitter(f):
    "A random split in which each class has its share."
    def sides(labels, p_valid, seed=0):
        got = untouched(f, labels, p_valid, seed)
        if not isinstance(got, list): raise Wrong(f'it should give a list, and gives a {type(got).__name__}')
        if len(got) != len(labels): raise Wrong(f'it gives {len(got)} values for {len(labels)} labels')
        if odd := [o for o in got if not isinstance(o, bool)]:
            raise Wrong(f'the list should hold True and False; {odd[0]!r} is neither')
        return got

    def case(labels, p_valid, what):
        got = sides(labels, p_valid)
        for c in dict.fromkeys(labels):
            m = labels.count(c)
            n = sum(side for side, o in zip(got, labels) if o == c)
            if not math.floor(m*p_valid + 1e-9) <= n <= math.ceil(m*p_valid - 1e-9):
                raise Wrong(f'{what}: of {m} items of a class {n} are for validation; {m*p_valid:g} would be the share')
        return what
    yield case(['cat', 'dog']*10, 0.3, 'two classes')
    yield case(['cat']*50 + ['dog']*7 + ['fox']*3, 0.2, 'classes of different sizes')
    yield case([3, 1, 3, 3, 2, 1, 3, 2, 3, 3], 0.5, 'labels that are numbers')
    yield case(['cat'] + ['dog']*9, 0.4, 'a class of one')
    labels = (['cat']*10 + ['dog']*20)
    drawn = torch.tensor([sides(labels, 0.3, seed) for seed in range(200)]).float()     # (200, 30)
    yield expect(len(drawn.unique(dim=0)) > 100, 'another seed, another choice', 'the seed does not change the choice')
    off = (drawn.mean(0) - 0.3).abs()
    yield expect(off.max() < 5*math.sqrt(0.3*0.7/200), 'every item has its chance',
                 f'item {off.argmax()} of {len(labels)} is for validation with {drawn[:, off.argmax()].mean():.0%} of '
                 'the seeds, where the share is 30%')

    salt = 0
    class Name(str):   # strings whose hashes change, as those of real ones do between processes
        def __hash__(self): return hash((str(self), salt))
    names = [Name(f'{i % 9} of nine') for i in range(90)]
    choices = []
    for salt in range(8): choices.append(sides(names, 0.3))
    yield expect(all(c == choices[0] for c in choices), 'the same choice in every process',
                 'the choice depends on the order of a set of strings, which is another one in every process')
    for bad in 20, 0: yield raises(ValueError, f, labels, bad, what=f'a share of {bad}')


@exercise('08.2', hints=[
    'Look at what `Processor` promises: besides the methods there are `c_out` and `fitted`. What does `__call__` do '
    'while `fitted` is true from the start?',
    'Three cuts make four classes. `torch.quantile` takes a tensor of floats and a tensor of shares.',
    'The class of a number is how many of the cuts lie below it. For `decode`, put minus infinity in front of the '
    'cuts and infinity behind them.'])
def QuantileProcessor(f):
    "A processor that makes classes of a number, learned from the training labels."
    def made(labels, n):
        proc = f(n)
        if not callable(proc): raise Wrong('it cannot be called with labels; derive it from `Processor`')
        return proc, proc(list(labels))
    def classes(labels, cuts): return torch.tensor([sum(c < o for c in cuts) for o in labels])
    def cuts_of(labels, n):
        return torch.quantile(torch.tensor(labels, dtype=torch.float64), torch.arange(1., n, dtype=torch.float64)/n)

    train = (torch.randn(40)*10 + 50).tolist()
    cuts = cuts_of(train, 4).tolist()
    proc, targets = made(train, 4)
    yield same(targets, classes(train, cuts), 'the training labels')
    if not hasattr(proc, 'c_out'): raise Wrong('it has no `c_out`, the number of outputs that its targets ask for')
    yield same(proc.c_out, 4, 'c_out')
    valid = [cuts[2] + 1., cuts[2] + 2., cuts[2] + 3., 1000., cuts[0] - 1., cuts[2] + 4., -1000., cuts[0] + 0.1]
    yield same(proc(valid), classes(valid, cuts), 'validation labels, by the cuts of the training labels')
    yield same(f(4).fitted, False, '`fitted` before')
    yield same(proc.fitted, True, '`fitted` afterwards')
    whole = [2*i for i in range(41)]
    random.shuffle(whole)
    other, targets = made(whole, 4)
    yield same(targets, classes(whole, [20., 40., 60.]), 'whole numbers, some of them on a cut')
    yield same(proc(valid), classes(valid, cuts), 'the first processor is what it was')
    yield same(other.decode(torch.tensor(1)), (20., 40.), 'decode')
    yield same(other.decode(0), (-math.inf, 20.), 'decode of the lowest')
    yield same(other.decode(3), (60., math.inf), 'decode of the highest')
    _, targets = made(train, 7)
    yield same(targets, classes(train, cuts_of(train, 7).tolist()), 'seven classes')
    yield expect(getattr(proc, 'loss_func', None) is F.cross_entropy, 'its loss',
                 '`loss_func` should be F.cross_entropy, in a staticmethod')


@exercise('08.3', hints=[
    'How many places are there for a square of 3 in a row of 5? Both ends count.',
    '`randrange` and `randint` differ in whether the last number can come. Draw from `rng`, in training the only '
    'source of chance.',
    'Work on a clone: the item may be a tensor that somebody keeps. And `@register_tfm` goes above `@dataclass`.'])
def RandomErase(f):
    "A transform that blackens a square at random."
    def image(h, w): return torch.randint(1, 256, (3, h, w), dtype=torch.uint8)
    def erased(tfm, x, seed):
        before = x.clone()
        got = untouched(tfm, x, rng=random.Random(seed))
        if not torch.equal(x, before): raise Wrong('the item is changed in place; work on a clone')
        if not isinstance(got, torch.Tensor) or got.shape != x.shape or got.dtype != x.dtype: same(got, x, 'the result')
        return got

    tfm, x = f(3), image(6, 8)
    for seed in range(20):
        got = erased(tfm, x, seed)
        black = (got == 0).all(0)
        if (got == 0).any(0).ne(black).any(): raise Wrong('the square is not black in all channels')
        if not torch.equal(got[:, ~black], x[:, ~black]): raise Wrong('pixels outside of the square have changed')
        rows, cols = black.any(1).sum(), black.any(0).sum()
        if (rows, cols) != (3, 3) or black.sum() != 9:
            raise Wrong(f'size=3 blackens {black.sum()} pixels in {rows} rows and {cols} columns')
    yield 'a square of that size'
    yield expect(torch.equal(erased(tfm, x, 1), erased(tfm, x, 1)), 'the same chance, the same square',
                 'two generators of one seed give two squares; is `rng` where the chance comes from?')
    yield same(tfm(x, rng=None), x, 'without chance')
    x = image(4, 5)
    seen = torch.stack([(erased(tfm, x, seed) == 0).all(0) for seed in range(300)])
    corners = seen[:, ::3, ::4].flatten(1).any(0)                                  # of a picture of 4 by 5
    yield expect(corners.all(), 'squares reach every corner', 'some corner of the picture is never black')
    n_places = len(seen.unique(dim=0))
    yield expect(n_places == 6, 'every place', f'a square of 3 fits into 4 by 5 pixels in 6 places; {n_places} come up')
    share = seen[:, 0, 0].float().mean()
    yield expect(abs(share - 1/6) < 5*math.sqrt(1/6*5/6/300), 'all places are equally likely',
                 'some places come up more often than others')
    yield same((erased(f(4), image(4, 4), 0)), torch.zeros(3, 4, 4, dtype=torch.uint8), 'as large as the picture')
    yield raises(ValueError, f(5), image(4, 9), rng=random.Random(0), what='larger than the picture')
    from minidl.learner import REGISTRY   # not from minidl.data, whose import would register its own classes again
    if not is_dataclass(tfm): raise Wrong('its settings cannot be written down; make it a dataclass')
    yield expect(REGISTRY.get(type(tfm).__name__) is type(tfm), 'registered',
                 'it is not registered, so no learner that uses it could be exported')
    again = type(tfm)(**{o.name: getattr(tfm, o.name) for o in fields(tfm)})
    yield expect(again == tfm != f(4), 'made again from its settings',
                 'made again from its settings it is not equal to itself, or equal to one of another size')


@exercise('08.4', hints=[
    '`wave.open(str(path))` gives an object that knows `getnframes`, `getnchannels` and `readframes`, which returns '
    'bytes.',
    'Two bytes make a number with a sign: `np.frombuffer` with a dtype of 16 bits, the lower byte first. Numbers of '
    'one moment stand side by side, one for each channel.',
    'Which files does a list look for? `ImageList` says so in a class attribute.'])
def SoundList(f):
    "An item list for WAV files."
    import numpy as np
    def write(path, sound):   # (channels, n) of int16
        with wave.open(str(path), 'wb') as w:
            w.setnchannels(len(sound)); w.setsampwidth(2); w.setframerate(8000)
            w.writeframes(np.ascontiguousarray(sound.T).astype('<i2').tobytes())
    with tempfile.TemporaryDirectory() as folder:
        path, rng = Path(folder), np.random.default_rng(0)
        sounds = {'a.wav': rng.integers(-32768, 32768, (1, 50)), 'b.wav': rng.integers(-9, 10, (1, 7)),
                  'c.wav': rng.integers(-32768, 32768, (2, 30))}
        for name, sound in sounds.items(): write(path/name, sound)
        want = {name: torch.tensor(s.mean(0, keepdims=True)/32768).float() for name, s in sounds.items()}
        il = f([path/'a.wav', path/'b.wav'])
        yield same(il[0], want['a.wav'], 'a sound of one channel')
        yield same(il[1], want['b.wav'], 'a soft one')
        yield same(f([path/'c.wav'])[0], want['c.wav'], 'two channels')
        yield same(f([str(path/'a.wav')])[0], want['a.wav'], 'a path that is a string')
        (path/'notes.txt').write_text('no sound')
        write(path/'D.WAV', sounds['b.wav'])
        names = [Path(o).name for o in f.from_files(path).items]
        yield expect(names == ['D.WAV', 'a.wav', 'b.wav', 'c.wav'], 'from_files',
                     f"from_files finds {', '.join(names)}; it should find the sounds and nothing else")
        yield same(f([path/'a.wav'], tfms=[lambda x: x[:, :5]])[0], want['a.wav'][:, :5], 'transforms')
