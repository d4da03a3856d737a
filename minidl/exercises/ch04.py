"Checks of the exercises of chapter 04."
import torch
import torch.nn.functional as F
from torch import nn

from .core import Wrong, exercise, expect, same, same_grads


@exercise('04.1', hints=[
    'It is minus the logarithm of 1 + exp(-z), and that is a sum of two exponentials, exp(0) + exp(-z): the trick'
    ' of this chapter.',
    'Which of 0 and -z is the larger? Take it out. What is left inside has an exponent that is never positive.',
    'Gradients: a branch of `torch.where` that is not chosen still gets a gradient of 0 times infinity, if '
    'something infinite happens in it. And at 0 the slope is a half: `logsumexp` and `minimum` know that, `clamp`'
    ' does not.'])
def log_sigmoid(f):
    "The logarithm of the sigmoid, without overflow."
    yield same_grads(f, F.logsigmoid, torch.randn(7), what='ordinary numbers')
    yield same_grads(f, F.logsigmoid, torch.randn(2, 1, 3), what='three axes')
    z = torch.tensor([-200., -1., 1., 200.])
    yield same(f(z), F.logsigmoid(z), 'large numbers')
    yield same_grads(f, F.logsigmoid, z, what='their gradients')
    yield same_grads(f, F.logsigmoid, torch.tensor([0.]), what='0 itself')
    yield same_grads(f, F.logsigmoid, torch.randn(4, dtype=torch.float64)*100, what='float64')


@exercise('04.2', hints=[
    '`max` over the lengths says how wide the batch is. `Tensor.new_full` makes a tensor full of one value, with '
    'the dtype of another.',
    'Fill the row of each item from the left, as far as its ids reach.',
    'The labels: a tensor of integers, whether they come as ints or as tensors of one number.'])
def collate_padded(f):
    "A batch of texts of different lengths."
    def case(lengths, what, pad=None, as_tensors=False):
        ids = [torch.randint(1, 100, (n,)) for n in lengths]
        labels = [i % 3 for i in range(len(lengths))]
        want = torch.full((len(ids), max(lengths)), 0 if pad is None else pad)
        for row, one in zip(want, ids): row[:len(one)] = one
        items = [(one, torch.tensor(label) if as_tensors else label) for one, label in zip(ids, labels)]
        got = f(items) if pad is None else f(items, pad=pad)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Wrong(f'{what}: it should give a pair, the ids and the labels')
        same(got[0], want, f'{what}: the ids')
        same(got[1], torch.tensor(labels), f'{what}: the labels')
        return what
    yield case([3, 5, 2], 'three items')
    yield case([4, 4], 'equal lengths')
    yield case([6], 'one item')
    yield case([2, 7, 1, 3], 'padded with 9', pad=9)
    yield case([3, 0, 2], 'an empty text')
    yield case([3, 1], 'labels that are tensors', as_tensors=True)
    items = [(torch.tensor([5, 6], dtype=torch.int32), 0), (torch.tensor([7], dtype=torch.int32), 1)]
    yield same(f(items)[0], torch.tensor([[5, 6], [7, 0]], dtype=torch.int32), 'int32 stays int32')


@exercise('04.3', hints=[
    'One tensor of zeros for each parameter, made when the optimizer is made. `parameters()` can be gone through '
    'once only.',
    'First the running sum, then the step with the new sum, and all of it without a record.',
    'A parameter that no loss has reached has None for a gradient: it stays where it is.'])
def SGDMomentum(f):
    "An optimizer that keeps its momentum."
    def net():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    def case(mom, what, steps=20, given=list):
        ours, theirs = net(), net()
        opt, sums = f(given(ours.parameters()), 0.05, mom), [torch.zeros_like(q) for q in theirs.parameters()]
        for step in range(1, steps + 1):
            xb, yb = torch.randn(8, 4), torch.randn(8, 1)
            F.mse_loss(ours(xb), yb).backward()
            opt.step()
            opt.zero_grad()
            grads = torch.autograd.grad(F.mse_loss(theirs(xb), yb), list(theirs.parameters()))
            with torch.no_grad():
                for q, v, g in zip(theirs.parameters(), sums, grads): q -= 0.05*v.mul_(mom).add_(g)
            params = list(ours.parameters())
            if any(p.grad is not None and p.grad.abs().max() > 0 for p in params):
                raise Wrong(f'{what}: gradients are left after zero_grad')
            if any(not p.requires_grad or not p.is_leaf for p in params):
                raise Wrong(f'{what}: after a step the parameters are no longer parameters')
            if step == 1 and all(torch.equal(p, q) for p, q in zip(params, net().parameters())):
                raise Wrong(f'{what}: a step changes nothing')
            for p, q in zip(params, theirs.parameters()): same(p, q, f'{what}: a weight after step {step}')
        return what
    for name in 'step', 'zero_grad':
        if not callable(getattr(f, name, None)): raise Wrong(f'it has no method `{name}`')
    yield case(0., 'no momentum', 3)
    yield case(0.9, 'momentum 0.9')
    used, unused = (nn.Parameter(torch.ones(3)) for _ in range(2))
    opt = f([used, unused], 0.1, 0.9)
    (2*used).sum().backward()
    opt.step()
    yield same(unused.detach(), torch.ones(3), 'a parameter without a gradient')
    p, q = (nn.Parameter(torch.ones(2)) for _ in range(2))
    first, second = f([p], 0.1, 0.9), f([q], 0.1, 0.9)
    for o, x in (first, p), (second, q):
        x.sum().backward()
        o.step()
    yield same(q.detach(), p.detach(), 'two optimizers side by side')
    try: yield case(0.9, 'a generator of parameters', 3, iter)
    except Wrong:
        raise Wrong('right with a list of parameters, but they may come as a generator, like `model.parameters()`, '
                    'and that can be gone through once only') from None


@exercise('04.4', hints=[
    'Think of each class as spread evenly over the epoch: a class of 30 items has one at about every thirtieth of'
    ' the way. What remains is to sort all items by their place on the way.',
    'Shuffle inside each class, give the i-th of its m items the place (i + something below 1)/m, and argsort the'
    ' places.',
    'The order has to come from a generator seeded with `mix_seed(self.seed, epoch)`, as in `EpochBatches.order`.'])
def StratifiedBatches(f):
    "Batches in which the classes have their shares."
    targ = torch.cat([torch.full((n,), c) for c, n in enumerate((60, 30, 10))])[torch.randperm(100)]
    sampler = f(targ, 20)
    batches = [list(map(int, b)) for b in sampler]
    yield expect([len(b) for b in batches] == [20]*5, 'five batches of 20 items',
                 f'100 items in batches of 20 come in batches of {[len(b) for b in batches]}')
    yield expect(sorted(i for b in batches for i in b) == list(range(100)), 'every item once',
                 'an epoch should have every index from 0 to 99 once')
    for k, b in enumerate(batches):
        for c, share in enumerate((12, 6, 2)):
            n = (targ[b] == c).sum().item()
            if abs(n - share) > 2:
                raise Wrong(f'batch {k} has {n} items of class {c}, more than 2 away from the share of that class')
    yield 'classes in their shares'
    again = [list(map(int, b)) for b in f(targ, 20)]
    yield expect(again == batches, 'the same order from the same seed',
                 'two samplers with one seed give different batches')
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = [list(map(int, b)) for b in f(targ, 20)]
    yield expect(again == batches and torch.equal(torch.get_rng_state(), state), 'the global generator is left alone',
                 'the order depends on the global generator, or draws from it')
    second = [list(map(int, b)) for b in sampler]
    yield expect(second != batches, 'another order in the next epoch', 'the second epoch has the order of the first')
    yield expect([set(b) for b in second] != [set(b) for b in batches], 'other batches in the next epoch',
                 'the second epoch has the same items in each batch')
    sampler.set_epoch(0)
    yield expect([list(map(int, b)) for b in sampler] == batches, 'set_epoch goes back',
                 'after set_epoch(0) the batches are not those of epoch 0')
    yield expect([list(map(int, b)) for b in f(targ, 20, seed=1)] != batches, 'another order from another seed',
                 'the seed makes no difference')
    targ = torch.randint(0, 3, (103,))
    batches = [list(map(int, b)) for b in f(targ, 25)]
    shares = targ.bincount(minlength=3)*25/103
    off = [(targ[b].bincount(minlength=3) - shares).abs().max() for b in batches[:-1]]
    yield expect(sorted(i for b in batches for i in b) == list(range(103)) and max(off) <= 2, 'a ragged last batch',
                 '103 items in batches of 25: an item is missing, or a full batch has not the shares')


@exercise('04.5', hints=[
    'Do not shuffle rows, shuffle groups: `groups.unique()` are the groups there are.',
    'Cut the shuffled groups into k parts. A row is in the validation part i if its group is in part i of the groups.',
    '`torch.isin` makes a mask of that, and `nonzero` gives the indices.'])
def grouped_folds(f):
    "Folds that do not tear groups apart."
    def case(groups, k, what):
        folds = f(groups, k)
        if not isinstance(folds, (list, tuple)) or len(folds) != k:
            raise Wrong(f'{what}: it should give {k} pairs of indices')
        seen, sizes = [], []
        for train, valid in folds:
            for part in train, valid:
                if not isinstance(part, torch.Tensor) or part.dtype != torch.int64 or part.ndim != 1:
                    raise Wrong(f'{what}: indices should be int64 tensors of one axis')
            if both := set(groups[train].tolist()) & set(groups[valid].tolist()):
                raise Wrong(f'{what}: group {min(both)} is on both sides of a fold')
            if sorted(train.tolist() + valid.tolist()) != list(range(len(groups))):
                raise Wrong(f'{what}: train and valid together are not all rows, each once')
            seen += valid.tolist()
            sizes.append(len(groups[valid].unique()))
        if sorted(seen) != list(range(len(groups))):
            raise Wrong(f'{what}: not every row is in exactly one validation part')
        if max(sizes) - min(sizes) > 1:
            raise Wrong(f'{what}: the validation parts have {sizes} groups; these should differ by one at most')
        return what
    yield case(torch.arange(6).repeat_interleave(5), 3, 'six groups of five rows')
    yield case(torch.arange(7).repeat(4), 3, 'rows of a group that do not lie together')
    yield case(torch.tensor([100, -3, 100, 8, 8, 8, 41, -3]), 4, 'any numbers for groups')
    yield case(torch.arange(9), 2, 'groups of one')
    groups = torch.arange(12).repeat(2)
    def valid(**kwargs): return [sorted(v.tolist()) for _, v in f(groups, 3, **kwargs)]
    yield expect(valid(seed=1) == valid(seed=1), 'the same folds from the same seed', 'one seed gives different folds')
    yield expect(valid(seed=1) != valid(seed=2), 'other folds from another seed', 'the seed makes no difference')
    state = torch.get_rng_state()
    f(groups, 3)
    yield expect(torch.equal(torch.get_rng_state(), state), 'the global generator is left alone',
                 'it draws from the global generator; make one of your own from `seed`')
