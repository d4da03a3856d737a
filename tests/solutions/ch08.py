"""Right and wrong answers to the exercises of chapter 08. `wrong` maps a part of the message to an answer that should
get it."""
import math
import random
import wave
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from minidl.data import ItemList, Processor, register_tfm


def check_share(p_valid):
    if not 0 < p_valid < 1: raise ValueError(f'p_valid is a share between 0 and 1, not {p_valid}.')

def stratified_splitter(labels, p_valid=0.2, seed=0):
    check_share(p_valid)
    rng, sides = random.Random(seed), [False]*len(labels)
    for c in sorted(set(labels)):
        places = [i for i, o in enumerate(labels) if o == c]
        for i in rng.sample(places, round(len(places)*p_valid)): sides[i] = True
    return sides

def by_set(labels, p_valid=0.2, seed=0):
    check_share(p_valid)
    rng, sides = random.Random(seed), [False]*len(labels)
    for c in set(labels):
        places = [i for i, o in enumerate(labels) if o == c]
        for i in rng.sample(places, round(len(places)*p_valid)): sides[i] = True
    return sides
def of_all(labels, p_valid=0.2, seed=0):
    chosen = random.Random(seed).sample(range(len(labels)), round(len(labels)*p_valid))
    return [i in chosen for i in range(len(labels))]
def first_of_each(labels, p_valid=0.2, seed=0):
    return [labels[:i].count(o) < round(labels.count(o)*p_valid) for i, o in enumerate(labels)]
def turns(labels, p_valid=0.2, seed=0):
    return [(labels[:i].count(o) + seed) % labels.count(o) < round(labels.count(o)*p_valid)
            for i, o in enumerate(labels)]
def rotates(labels, p_valid=0.2, seed=0):
    shift = random.Random(seed).randrange(3)
    return [(labels[:i].count(o) + shift) % labels.count(o) < round(labels.count(o)*p_valid)
            for i, o in enumerate(labels)]
def seeds_all(labels, p_valid=0.2, seed=0):
    check_share(p_valid)
    random.seed(seed)
    return stratified_splitter(labels, p_valid, random.random())
def as_tensor(labels, p_valid=0.2, seed=0): return torch.tensor(stratified_splitter(labels, p_valid, seed))
def as_numbers(labels, p_valid=0.2, seed=0): return [int(o) for o in stratified_splitter(labels, p_valid, seed)]
def of_percent(labels, p_valid=0.2, seed=0):
    return stratified_splitter(labels, p_valid/100 if p_valid >= 1 else p_valid, seed)


class QuantileProcessor(Processor):
    loss_func = staticmethod(F.cross_entropy)
    def __init__(self, n_classes): self.c_out, self.cuts = n_classes, None
    @property
    def fitted(self): return self.cuts is not None
    def fit(self, labels):
        shares = torch.arange(1, self.c_out)/self.c_out
        self.cuts = torch.quantile(torch.tensor(labels).float(), shares).tolist()
    def encode(self, label): return sum(cut < label for cut in self.cuts)
    def decode(self, target):
        edges = [-math.inf, *self.cuts, math.inf]
        return edges[int(target)], edges[int(target) + 1]

class NeverFitted(QuantileProcessor): fitted = True
class AlwaysFits(QuantileProcessor): fitted = False
class EqualWidths(QuantileProcessor):
    def fit(self, labels): self.cuts = torch.linspace(min(labels), max(labels), self.c_out + 1)[1:-1].tolist()
class UpperClass(QuantileProcessor):
    def encode(self, label): return sum(cut <= label for cut in self.cuts)
class CutTooMany(QuantileProcessor):
    def fit(self, labels):
        self.cuts = torch.quantile(torch.tensor(labels).float(), torch.linspace(0, 1, self.c_out + 1)).tolist()
class NoCOut(QuantileProcessor):
    def __init__(self, n_classes): self.n, self.cuts = n_classes, None
    def fit(self, labels):
        self.cuts = torch.quantile(torch.tensor(labels).float(), torch.arange(1, self.n)/self.n).tolist()
class SharedCuts(QuantileProcessor):
    cuts, fitted = [], False
    def __init__(self, n_classes): self.c_out = n_classes
    def fit(self, labels):
        shares = torch.arange(1, self.c_out)/self.c_out
        self.cuts[:], self.fitted = torch.quantile(torch.tensor(labels).float(), shares).tolist(), True
class NoEnds(QuantileProcessor):
    def decode(self, target): return self.cuts[int(target) - 1], self.cuts[int(target)]
class OtherLoss(QuantileProcessor): loss_func = staticmethod(F.mse_loss)
class NotOne:
    def __init__(self, n_classes): self.c_out = n_classes
class FloatTargets(QuantileProcessor):
    def encode(self, label): return float(super().encode(label))


@register_tfm
@dataclass
class RandomErase:
    size:int
    def __call__(self, x, rng=random):
        h, w = (n - self.size for n in x.shape[1:])
        if h < 0 or w < 0: raise ValueError(f'A square of {self.size} does not fit into {tuple(x.shape[1:])}.')
        if rng is None: return x
        top, left, x = rng.randint(0, h), rng.randint(0, w), x.clone()
        x[:, top:top + self.size, left:left + self.size] = 0
        return x

def erase(x, size, top, left):
    x[:, top:top + size, left:left + size] = 0
    return x

@register_tfm
@dataclass
class ErasesInPlace:
    size:int
    def __call__(self, x, rng=random):
        return x if rng is None else erase(x, self.size, *(rng.randint(0, n - self.size) for n in x.shape[1:]))
@register_tfm
@dataclass
class ErasesByGlobalChance:
    size:int
    def __call__(self, x, rng=random):
        if rng is None: return x
        return erase(x.clone(), self.size, *(random.randint(0, n - self.size) for n in x.shape[1:]))
@register_tfm
@dataclass
class ErasesAlways:
    size:int
    def __call__(self, x, rng=random):
        return erase(x.clone(), self.size, *((rng or random).randint(0, n - self.size) for n in x.shape[1:]))
@register_tfm
@dataclass
class ErasesShort:
    size:int
    def __call__(self, x, rng=random):
        if rng is None: return x
        return erase(x.clone(), self.size, *(rng.randrange(max(1, n - self.size)) for n in x.shape[1:]))
@register_tfm
@dataclass
class ErasesAtTheEdge:
    size:int
    def __call__(self, x, rng=random):
        return x if rng is None else erase(x.clone(), self.size, *(rng.randrange(n) for n in x.shape[1:]))
@register_tfm
@dataclass
class ErasesAnySize:
    size:int
    def __call__(self, x, rng=random):
        if rng is None: return x
        return erase(x.clone(), self.size, *(rng.randint(0, max(0, n - self.size)) for n in x.shape[1:]))
@register_tfm
@dataclass
class ErasesOneChannel:
    size:int
    def __call__(self, x, rng=random):
        if rng is None: return x
        x = x.clone()
        erase(x[:1], self.size, *(rng.randint(0, n - self.size) for n in x.shape[1:]))
        return x
@dataclass
class ErasesUnregistered(RandomErase): pass
@register_tfm
@dataclass
class ErasesToFloats:
    size:int
    def __call__(self, x, rng=random):
        return x if rng is None else erase(x.float(), self.size, *(rng.randint(0, n - self.size) for n in x.shape[1:]))


class SoundList(ItemList):
    extensions = '.wav'
    def open(self, item):
        with wave.open(str(item)) as w: n, data = w.getnchannels(), w.readframes(w.getnframes())
        sound = np.frombuffer(data, '<i2').reshape(-1, n).mean(1, keepdims=True).T       # (1, n)
        return torch.from_numpy(sound/32768).float()

class SoundBase(ItemList):
    extensions = '.wav'
    def read(self, item, dtype='<i2'):
        with wave.open(str(item)) as w: return w.getnchannels(), np.frombuffer(w.readframes(w.getnframes()), dtype)
class SoundBytes(SoundBase):
    def open(self, item): return torch.tensor(self.read(item, 'u1')[1]/128 - 1)[None].float()
class SoundUnsigned(SoundBase):
    def open(self, item): return torch.tensor(self.read(item, '<u2')[1]/32768)[None].float()
class SoundUnscaled(SoundBase):
    def open(self, item): return torch.tensor(self.read(item)[1])[None].float()
class SoundDouble(SoundBase):
    def open(self, item): return torch.tensor(self.read(item)[1]/32768)[None]
class SoundFlat(SoundBase):
    def open(self, item): return torch.tensor(self.read(item)[1]/32768).float()
class SoundNoChannels(SoundBase):
    def open(self, item): return torch.tensor(self.read(item)[1]/32768)[None].float()
class SoundHalves(SoundBase):
    def open(self, item):
        n, data = self.read(item)
        return torch.tensor(data.reshape(n, -1).mean(0)/32768)[None].float()
class SoundAnyFile(SoundList): extensions = None
class SoundNoTfms(SoundList):
    def get(self, i, train=False, rng=None): return self.open(self.items[i])


right = {'08.1': stratified_splitter, '08.2': QuantileProcessor, '08.3': RandomErase, '08.4': SoundList}
wrong = {
    '08.1': {'order of a set': by_set, 'would be the share': of_all,
             'the seed does not change': (first_of_each, turns, rotates), 'a global generator': seeds_all,
             'gives a Tensor': as_tensor, ' is neither': as_numbers, 'a share of 20: raises nothing': of_percent},
    '08.2': {'NoneType': NeverFitted, 'validation labels, by the cuts of the training labels: the values': AlwaysFits,
             'the training labels: the values': (EqualWidths, CutTooMany),
             'some of them on a cut: the values': UpperClass, 'no `c_out`': NoCOut,
             'decode of the lowest': NoEnds, 'should be F.cross_entropy': OtherLoss,
             'derive it from `Processor`': NotOne, 'dtype float32': FloatTargets,
             'the first processor is what it was: ': SharedCuts},
    '08.3': {'changed in place': ErasesInPlace, 'a global generator': ErasesByGlobalChance,
             'without chance: ': ErasesAlways, 'is never black': ErasesShort,
             'size=3 blackens': ErasesAtTheEdge, 'raises nothing': ErasesAnySize, 'in all channels': ErasesOneChannel,
             'not registered': ErasesUnregistered,
             'dtype float32 instead of uint8': ErasesToFloats},
    '08.4': {'shape (1, 100) instead of (1, 50)': SoundBytes, 'one channel: the values': (SoundUnsigned, SoundUnscaled),
             'dtype float64': SoundDouble,
             'shape (50,)': SoundFlat, 'two channels: shape (1, 60)': SoundNoChannels,
             'two channels: the values': SoundHalves,
             'notes.txt': SoundAnyFile, 'transforms: shape': SoundNoTfms},
}
