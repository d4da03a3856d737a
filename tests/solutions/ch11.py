"Right and wrong answers to the exercises of chapter 11."
import re
from collections import Counter

import torch

from minidl.text import LMLoader
from minidl.training import mix_seed


class Digits:
    def __call__(self, lists): return [[o for t in tokens for o in self.spell(t)] for tokens in lists]
    def spell(self, t): return ['xxnum', *t, 'xxend'] if re.fullmatch('[0-9]{2,}', t) else [t]
    def decode(self, tokens):
        out, digits = [], None                  # digits of the number that is open
        for t in [*tokens, 'xxend']:
            if digits is not None and re.fullmatch('[0-9]', t):
                digits += t
                continue
            if digits: out.append(digits)
            digits = '' if t == 'xxnum' else None
            if t not in ('xxnum', 'xxend'): out.append(t)
        return out

class AnyDigit(Digits):
    def spell(self, t): return ['xxnum', *t, 'xxend'] if len(t) > 1 and t.isdigit() else [t]
class SingleToo(Digits):
    def spell(self, t): return ['xxnum', *t, 'xxend'] if re.fullmatch('[0-9]+', t) else [t]
class NoEnd(Digits):
    def spell(self, t): return ['xxnum', *t] if re.fullmatch('[0-9]{2,}', t) else [t]
class InPlace(Digits):
    def __call__(self, lists):
        out = super().__call__(lists)
        for tokens, new in zip(lists, out): tokens[:] = new
        return out
class RunsOfDigits(Digits):
    def decode(self, tokens):
        text = ' '.join(t for t in tokens if t not in ('xxnum', 'xxend'))
        return re.sub(r'(?<=\b\d) (?=\d\b)', '', text).split()
class Trusting(Digits):
    def decode(self, tokens):
        out, tokens = [], list(tokens)
        while tokens:
            if (t := tokens.pop(0)) == 'xxnum':
                end = tokens.index('xxend')
                t, tokens = ''.join(tokens[:end]), tokens[end + 1:]
            out.append(t)
        return out
class LosesTheEnd(Digits):
    def decode(self, tokens):
        full = super().decode(tokens)
        return full[:-1] if 'xxnum' in tokens and tokens[-1].isdigit() else full
class DigitsHalf(Digits):
    def decode(self, tokens): raise NotImplementedError


def windows(ids, size, step, fill=1):
    if not 1 <= step <= size: raise ValueError(f'step={step} should be from 1 to size={size}.')
    n = len(ids)
    if n < size:
        rows = torch.full((1, size), fill)
        rows[0, size - n:] = ids
        return rows, torch.arange(size)[None] >= size - n
    starts = torch.tensor([*range(0, n - size, step), n - size])
    places = starts[:, None] + torch.arange(size)                   # (n_rows, size)
    seen = torch.cat([torch.tensor([-1]), places[:-1, -1]])
    return ids[places], places > seen[:, None]

def end_left_out(ids, size, step):
    if len(ids) < size or not 1 <= step <= size: return windows(ids, size, step)
    rows = ids.unfold(0, size, step)
    new = torch.ones(rows.shape, dtype=torch.bool)
    new[1:, :size - step] = False
    return rows, new
def same_overlap(ids, size, step):
    rows, new = windows(ids, size, step)
    if len(rows) > 1: new[1:] = torch.arange(size) >= size - step
    return rows, new
def one_too_many(ids, size, step):
    rows, new = windows(ids, size, step)
    if (len(ids) - size) % step == 0 and len(ids) > size:
        rows, new = torch.cat([rows, rows[-1:]]), torch.cat([new, torch.zeros_like(new[-1:])])
    return rows, new
def pads_new(ids, size, step):
    rows, new = windows(ids, size, step)
    return rows, new | (rows == 1)
def pads_after(ids, size, step):
    rows, new = windows(ids, size, step)
    return (rows.flip(1), new.flip(1)) if len(ids) == 3 else (rows, new)
def with_gaps(ids, size, step):
    return windows(ids, size, min(step, size) if step else 0)
def no_errors(ids, size, step):
    if not step: return ids[None, :size], torch.ones(1, size, dtype=torch.bool)
    return windows(ids, size, step)
def rows_alone(ids, size, step): return windows(ids, size, step)[0]
def as_numbers(ids, size, step):
    rows, new = windows(ids, size, step)
    return rows, new.long()


def joined(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        both = tuple(symbols[i:i + 2]) == pair
        out.append(symbols[i] + symbols[i + 1] if both else symbols[i])
        i += 2 if both else 1
    return out

def bpe(words, n_merges, weigh=lambda n: n, choose=lambda counts: min(counts, key=lambda p: (-counts[p], p)),
        join=joined):
    symbols, pairs = {w: list(w) for w in words}, []
    for _ in range(n_merges):
        counts = Counter()
        for w, n in words.items():
            for pair in zip(symbols[w], symbols[w][1:]): counts[pair] += weigh(n)
        if not counts: break
        pairs.append(choose(counts))
        symbols = {w: join(s, pairs[-1]) for w, s in symbols.items()}
    return pairs

def each_word_once(words, n_merges): return bpe(words, n_merges, weigh=lambda n: 1)
def first_met(words, n_merges): return bpe(words, n_merges, choose=lambda counts: counts.most_common(1)[0][0])
def within_strings(words, n_merges):
    return bpe(words, n_merges, join=lambda s, pair: ' '.join(s).replace(' '.join(pair), ''.join(pair)).split())
def never_joins(words, n_merges): return bpe(words, n_merges, join=lambda s, pair: s)
def no_overlap(words, n_merges):
    symbols, pairs = {w: list(w) for w in words}, []
    for _ in range(n_merges):
        counts = Counter()
        for w, n in words.items():
            for pair in set(zip(symbols[w], symbols[w][1:])):
                counts[pair] += n*(len(symbols[w]) - len(joined(symbols[w], pair)))
        if not counts: break
        pairs.append(min(counts, key=lambda p: (-counts[p], p)))
        symbols = {w: joined(s, pairs[-1]) for w, s in symbols.items()}
    return pairs
def runs_out(words, n_merges):
    pairs = bpe(words, n_merges)
    return pairs if len(pairs) == n_merges else [max({}) for _ in pairs]
def as_strings(words, n_merges): return [a + b for a, b in bpe(words, n_merges)]


class RandomColumns(LMLoader):
    running = 0
    def spans(self, epoch=None):
        g = torch.Generator().manual_seed(mix_seed(self.seed, self.running if epoch is None else epoch))
        whole, spans = self.n_columns - self.short, []
        for a, end, rows in (0, whole, self.rows), (whole, self.n_columns, self.rows - 1):
            while a < end:
                b = min(end, a + self.width(g))
                spans.append((a, b, rows))
                a = b
        return spans
    def width(self, g): return int(torch.randint(max(1, self.bptt//2), self.bptt + self.bptt//2 + 1, (), generator=g))
    def set_epoch(self, epoch, skip=0):
        self.epoch = epoch
        super().set_epoch(epoch, skip)
    def __len__(self): return len(self.spans(self.epoch))
    def __iter__(self):
        self.running = self.epoch
        yield from super().__iter__()

class Unchanged(LMLoader): pass
class FromTheGlobal(RandomColumns):
    def width(self, g): return super().width(None)
class NextEpoch(RandomColumns):
    def __len__(self): return len(self.spans(self.running))
class NeverAnother(RandomColumns):
    def spans(self, epoch=None): return super().spans(0)
class OldLength(RandomColumns):
    def __len__(self): return LMLoader.__len__(self)
    def set_epoch(self, epoch, skip=0): self.epoch, self.skip = epoch, skip
class OtherEpochsLength(RandomColumns):
    def set_epoch(self, epoch, skip=0): LMLoader.set_epoch(self, epoch, skip)
class TooNarrow(RandomColumns):
    def width(self, g): return max(1, min(super().width(g), self.bptt))
class LeansLeft(RandomColumns):
    def width(self, g): return min(super().width(g), super().width(g))
class NoColumns(RandomColumns):
    def width(self, g): return super().width(g) if self.bptt > 1 else 2
class LosesTheRest(RandomColumns):
    def spans(self, epoch=None): return [s for s in super().spans(epoch) if s[2] == self.bs]
class SkipsAlways(RandomColumns):
    def __iter__(self):
        self.running, self.skip = self.epoch, 0
        yield from LMLoader.__iter__(self)
class RandomColumnsHalf(RandomColumns):
    def __len__(self): raise NotImplementedError


right = {'11.1': Digits, '11.2': windows, '11.3': bpe, '11.5': RandomColumns}
wrong = {
    '11.1': {'tokens that are no such numbers': AnyDigit, 'lists of tokens [0]': (SingleToo, NoEnd),
             'lists that it is given are changed': InPlace, 'side by side, there and back': RunsOfDigits,
             'that a word interrupts': Trusting, 'ends within a number': LosesTheEnd,
             '`decode` is not written yet': DigitsHalf},
    '11.2': {'would stick out: the rows: shape (3, 4) instead of (4, 4)': end_left_out,
             'what is new: the values differ at 1 of 16': same_overlap,
             'end with the text: the rows: shape (4, 4)': one_too_many,
             'shorter than a window [1]': pads_new, 'shorter than a window [0]': pads_after,
             'lose tokens: raises nothing': with_gaps, 'a step of 0: raises nothing': no_errors,
             'a tuple of two tensors': rows_alone, 'dtype int64 instead of bool': as_numbers},
    '11.3': {'words count as often as they come [0]': each_word_once, 'equally frequent [0]': first_met,
             'the end of a longer symbol: gives a list of 2 instead of 3': within_strings,
             'words count as often as they come [1]': never_joins,
             'pairs that overlap [0]': no_overlap, 'raises ValueError': runs_out,
             'a str instead of a tuple': as_strings},
    '11.5': {'and no others': Unchanged, 'two loaders with one seed': FromTheGlobal, 'len() is': (NextEpoch, OldLength),
             'should depend on seed and epoch': NeverAnother, 'does it ask another epoch': OtherEpochsLength,
             'have 5 to 10 columns': TooNarrow,
             'columns on average': LeansLeft, 'all batches have one column': NoColumns,
             'should be the whole stream': LosesTheRest,
             'go on with the fifth': SkipsAlways, '`__len__` is not written yet': RandomColumnsHalf},
}
