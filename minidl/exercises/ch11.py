"Checks of the exercises of chapter 11."
from collections import Counter

import torch

from .core import Wrong, exercise, expect, raises, same


@exercise('11.1', hints=[
    'A call builds new lists; a token that is no number goes over as it is. Which characters are digits here? '
    '`isdigit` knows more of them than ten.',
    'For `decode` go through the tokens once and remember whether a number is open, and its digits so far. What ends '
    'it? Anything but a single digit, also the end of the text.',
    'A mark is never handed on. A second `xxnum` ends one number and begins another.'])
def Digits(f):
    "Numbers digit by digit, and whole again."
    for name in '__call__', 'decode':
        if not callable(getattr(f, name, None)): raise Wrong(f'it has no method `{name}`')
    spell = f()
    text = ['xxbos', 'in', '1984', ',', '7', 'films', 'xxeos']
    spelled = ['xxbos', 'in', 'xxnum', '1', '9', '8', '4', 'xxend', ',', '7', 'films', 'xxeos']
    yield same(spell([text, [], ['12']]), [spelled, [], ['xxnum', '1', '2', 'xxend']], 'lists of tokens')
    yield expect(text[2] == '1984' and len(text) == 7, 'which are left alone', 'the lists that it is given are changed')
    others = ['b2b', '3.14', '12th', '²³', '٣٤', '½', '10,000', '']
    yield same(spell([others]), [others], 'tokens that are no such numbers')
    from ..text import TokenLists
    yield same(spell(TokenLists.from_lists([text, text[:3]])), [spelled, spelled[:8]], 'what a Tokenizer gives')
    yield same(spell.decode(spelled), text, 'decode')
    hard = ['19', '84', '7', '8', 'xxrep', '12', '!', '007', '3', '1', '00']
    yield same(spell.decode(spell([hard])[0]), hard, 'numbers side by side, there and back')
    yield same(spell.decode(['2', '0', '1', 'x']), ['2', '0', '1', 'x'], 'digits that no mark announces')
    for tokens, want, what in [
            (['xxnum', '1', '9', 'the', 'xxend', 'end'], ['19', 'the', 'end'], 'a number that a word interrupts'),
            (['a', 'xxnum', '4', '5'], ['a', '45'], 'a text that ends within a number'),
            (['xxnum', 'xxend', 'b', 'xxnum'], ['b'], 'marks with no digits'),
            (['xxnum', '1', '2', 'xxnum', '3', 'xxend', '4'], ['12', '3', '4'], 'a number announced within another'),
            (['xxnum', '1', '84', '5'], ['1', '84', '5'], 'a token of two digits within a number')]:
        yield same(spell.decode(tokens), want, what)


@exercise('11.2', hints=[
    'First the beginnings: every `step`-th place as long as a whole window fits, and one more if the last window does '
    'not reach the end. Then one indexing operation takes all the rows.',
    'Write down the place in the text of every number of the result. A place is new if it lies behind the last place '
    'of the row before.',
    'Rows overlap by `size - step`, but for the last, which may overlap by more.'])
def windows(f):
    "A long text in windows that overlap, each token new once."
    def case(n, size, step, starts, what):
        ids = torch.randint(2, 1000, (n,))
        got = f(ids, size, step)
        if not isinstance(got, tuple) or len(got) != 2: raise Wrong(f'{what}: it should give a tuple of two tensors')
        rows, seen = torch.stack([ids[a:a + size] for a in starts]), 0
        new = torch.zeros(len(starts), size, dtype=torch.bool)
        for i, a in enumerate(starts):
            new[i, max(seen - a, 0):] = True
            seen = a + size
        same(got[0], rows, f'{what}: the rows')
        return same(got[1], new, f'{what}: what is new') and what
    yield case(10, 4, 3, [0, 3, 6], 'windows that end with the text')
    yield case(12, 4, 3, [0, 3, 6, 8], 'a last window that would stick out')
    yield case(29, 7, 2, [*range(0, 23, 2)], 'much overlap')
    yield case(14, 5, 5, [0, 5, 9], 'no overlap but at the end')
    yield case(15, 5, 5, [0, 5, 10], 'no overlap at all')
    yield case(6, 6, 2, [0], 'one window')
    yield same(f(torch.tensor([7, 8, 9]), 5, 2), (torch.tensor([[1, 1, 7, 8, 9]]),
               torch.tensor([[False, False, True, True, True]])), 'a text shorter than a window')
    yield raises(ValueError, f, torch.arange(20), 4, 5, what='a step that would lose tokens')
    yield raises(ValueError, f, torch.arange(20), 4, 0, what='a step of 0')


@exercise('11.3', hints=[
    'Keep each different word as a list of its symbols, beside its count. A round counts, chooses, joins.',
    'Counting: each place where two symbols stand side by side counts as often as the word comes.',
    'Joining goes through the symbols of a word from left to right. It works on symbols, not on letters: text '
    'replaced within a string also takes the end of a longer symbol.'])
def bpe(f):
    "The pairs that byte-pair encoding joins."
    def case(words, n, want, what):
        words = Counter(words)
        before = dict(words)
        got = same(f(words, n), want, what)
        if dict(words) != before: raise Wrong(f'{what}: the Counter that it is given is changed')
        return got
    yield case({'ab': 2, 'abc': 3, 'bc': 1}, 1, [('a', 'b')], 'one pair')
    yield case({'xy': 1, 'xyy': 1, 'xyz': 1, 'zz': 9}, 2, [('z', 'z'), ('x', 'y')], 'words count as often as they come')
    yield case({'cb': 2, 'ab': 2}, 2, [('a', 'b'), ('c', 'b')], 'pairs that are equally frequent')
    classic = [('e', 's'), ('es', 't'), ('l', 'o'), ('lo', 'w'), ('e', 'w'), ('ew', 'est'), ('n', 'ewest')]
    yield case({'low': 5, 'lower': 2, 'newest': 6, 'widest': 3}, 7, classic, 'symbols that grow')
    yield case({'aaa': 2, 'bc': 3}, 3, [('a', 'a'), ('b', 'c'), ('aa', 'a')], 'pairs that overlap')
    yield case({'aaab': 1}, 2, [('a', 'a'), ('a', 'b')], 'and are joined from left to right')
    yield case({'ya': 10, 'ab': 5, 'yab': 3}, 3, [('y', 'a'), ('a', 'b'), ('ya', 'b')], 'the end of a longer symbol')
    yield case({'ab': 4, 'c': 2}, 10, [('a', 'b')], 'nothing left to join')
    yield case({}, 5, [], 'no words')
    yield case({'ab': 4}, 0, [], 'no joins')


@exercise('11.5', hints=[
    '`spans` says which columns make a batch, and all else in `LMLoader` follows it. But it must know the epoch, and '
    'when it is called the attribute has moved on.',
    'Remember the epoch before the iteration begins, draw in `spans` from a generator seeded with `mix_seed` of seed '
    'and epoch, and let `__len__` count the spans of the epoch that comes next.',
    '`set_epoch` compares `skip` with the length: of which epoch?'])
def RandomColumns(f):
    "Batches of a stream with a random number of columns."
    ids = [torch.randint(2, 500, (int(n),)).numpy() for n in torch.randint(5, 40, (60,))]
    def targets(batches):
        rows = [[] for _ in range(4)]
        for xb, yb in batches:
            for row, x, y in zip(rows, xb.tolist(), yb.tolist()): row += zip(x, y)
        return [pair for row in rows for pair in row]
    def pairs(order):
        stream = [int(t) for i in order for t in ids[i]]
        return list(zip(stream, stream[1:]))
    loader = f(ids, 4, 10)
    batches = list(loader)
    yield expect(targets(batches) == pairs(range(60)), 'nothing lost, nothing doubled',
                 'read row by row, inputs and targets should be the whole stream, each token but the first a target '
                 'once')
    widths = [xb.shape[1] for xb, _ in batches]
    yield expect(len(set(widths)) > 4, 'widths that vary',
                 f'the batches have {sorted(set(widths))} columns, and no others')
    drawn = []                                       # without the last ones, which the end of the rows cuts short
    for i in range(20):
        loader.set_epoch(i)
        drawn += [xb.shape[1] for xb, _ in loader if len(xb) == 4][:-1]
    drawn = torch.tensor(drawn)
    low, high = drawn.min().item(), drawn.max().item()
    yield expect(low == 5 and high == 15, 'between half of bptt and one and a half',
                 f'with bptt=10 the batches of 20 epochs have {low} to {high} columns; expected are 5 to 15')
    error = 5*(10/len(drawn))**.5 + 0.25             # the last ones, which are missing, are the wider ones
    yield expect(abs(drawn.float().mean() - 10) < error, 'bptt on average',
                 f'with bptt=10 the batches have {drawn.float().mean():.2f} columns on average')
    yield expect({x.shape[1] for x, _ in f(ids[:3], 2, 1)} == {1}, 'bptt of 1',
                 'with bptt=1 all batches have one column')
    def epoch(i, seed=3, skip=0):
        loader = f(ids, 4, 10, shuffle=True, seed=seed)
        if i or skip: loader.set_epoch(i, skip)
        return loader, [(x.tolist(), y.tolist()) for x, y in loader]
    loader, first = epoch(0)
    mixed = targets([(torch.tensor(x), torch.tensor(y)) for x, y in first])
    yield expect(mixed != pairs(range(60)), 'shuffled texts', 'with shuffle=True the texts come in their order')
    yield expect(mixed == pairs(loader.order(0).tolist()), 'in the order of the epoch',
                 'with shuffle=True the texts should be joined in the order that `order(epoch)` gives')
    torch.manual_seed(5)
    _, again = epoch(0)
    yield expect(first == again, 'the same again from the same seed',
                 'two loaders with one seed give different batches')
    def shape(batches): return [len(x[0]) for x, _ in batches]
    second = [(x.tolist(), y.tolist()) for x, y in loader]
    yield expect(shape(second) != shape(first) and shape(epoch(0, seed=4)[1]) != shape(first),
                 'other widths in another epoch, or from another seed',
                 'the widths should depend on seed and epoch, and are the same')
    yield expect(epoch(1)[1] == second, 'the second epoch by its number',
                 'epoch 1 is another one after `set_epoch(1)` than after epoch 0')
    lengths = {i: len(epoch(i)[1]) for i in range(4)}
    def told(i):
        loader = f(ids, 4, 10, shuffle=True, seed=3)
        if i: loader.set_epoch(i)
        return len(loader)
    wrong = [i for i in lengths if told(i) != lengths[i]]
    yield expect(not wrong, 'its length', f'len() is {told(wrong[0]) if wrong else 0} before epoch {wrong[:1]}, '
                 f'which has {lengths[wrong[0]] if wrong else 0} batches')
    yield expect(epoch(1, skip=4)[1] == second[4:], 'resuming within an epoch',
                 'without its first four batches an epoch should go on with the fifth as if it had given them')
    lengths = {i: told(i) for i in range(20)}
    base, longest = min(lengths, key=lengths.get), max(lengths, key=lengths.get)
    loader = f(ids, 4, 10, shuffle=True, seed=3)
    loader.set_epoch(base)
    try: loader.set_epoch(longest, lengths[longest] - 1)
    except ValueError:
        raise Wrong(f'set_epoch refuses to resume at the last batch of epoch {longest}; does it ask another epoch, '
                    'which has fewer batches?') from None
    rest = [(x.tolist(), y.tolist()) for x, y in loader]
    yield expect(rest == epoch(longest)[1][-1:], 'resuming at the end of a longer epoch',
                 'at the last batch of an epoch something else is read than that batch')
