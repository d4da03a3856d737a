"Checks of the exercises of chapter 09b."
import copy
import math
import struct

import torch
from torch import nn

from .core import Wrong, exercise, expect, same


@exercise('09b.1', inplace=True, hints=[
    'Two states are compared, the one before the step and the one after it. So something has to be kept, and it has '
    'to be a copy.',
    'The weights stay in float32. What is compared are their roundings, which you make for the comparison only.',
    'Of the gradients you need to know where they are zero, and an optimizer may do as it likes with them: look '
    'before the step.'])
def lost_updates(f):
    "The share of updates that rounding to float16 swallows, by parameter."
    def net(*values):
        model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3, bias=False))
        with torch.no_grad():
            for p, value in zip(model.parameters(), values): p.fill_(value)
        return model
    def case(what, model, opt, want):
        should = copy.deepcopy(model)
        theirs = opt(should.parameters())
        for p, q in zip(model.parameters(), should.parameters()): q.grad = None if p.grad is None else p.grad.clone()
        theirs.step()
        before = [p.detach().clone() for p in model.parameters()]
        same(f(model, opt(model.parameters())), want, what)
        if any(p.dtype != torch.float32 for p in model.parameters()):
            raise Wrong(f'{what}: the weights are no longer in float32')
        if not all(torch.equal(p, q) for p, q in zip(model.parameters(), should.parameters())):
            still = all(torch.equal(p, b) for p, b in zip(model.parameters(), before))
            raise Wrong(f'{what}: ' + ('the step is not made' if still else 'the weights are not those after one step'))
        return what
    def sgd(ps): return torch.optim.SGD(ps, lr=0.01)
    model = net(1., 1., 1.)
    grads = torch.ones(20)
    grads[:6], grads[6:9] = 1e-3, 0.
    model[0].weight.grad = grads[torch.randperm(20)].view(4, 5)
    model[0].bias.grad = torch.tensor([1., 1e-3, 1., 1.])
    model[1].weight.grad = torch.full((3, 4), 1e-3)
    yield case('a step of SGD', model, sgd, {'0.weight': 6/17, '0.bias': 1/4, '1.weight': 1.})
    model = net(1., 1., 1.)
    model[0].weight.grad, model[0].bias.grad = torch.ones(4, 5), torch.zeros(4)
    yield case('parameters without a gradient', model, sgd, {'0.weight': 0.})
    model = net(1.0004, 1.0004, 1.)
    model[0].weight.grad, model[0].bias.grad = torch.full((4, 5), -0.02), torch.full((4,), 0.02)
    yield case('weights between two halves', model, sgd, {'0.weight': 0., '0.bias': 1.})
    model = net(1., 1e-3, 4.001)
    for p in model.parameters(): p.grad = torch.full_like(p, 1e-6)
    yield case('an optimizer that is not SGD', model, lambda ps: torch.optim.AdamW(ps, lr=1.5e-3),
               {'0.weight': 0., '0.bias': 0., '1.weight': 1.})


@exercise('09b.2', inplace=True, hints=[
    'What is due now is the update and what was left over from earlier ones.',
    'Add that to w. What has w gained by it? What it should have gained and has not is the new rest.',
    'The order of the brackets matters: first how much w has moved, which is exact, then the difference.'])
def add_with_rest(f):
    "Small updates of a float16 weight, and a second float16 for what rounding takes away."
    def run(w, updates, what):
        "After each update w + rest has to be what exact arithmetic gives."
        w, exact = w.half(), w.half().double()
        rest = torch.zeros_like(w)
        gap = 2.**-10*torch.ones_like(exact)
        for u in updates:
            f(w, rest, u)
            exact += u.double()
            gap = torch.maximum(gap, 2.**-10*exact.abs())
            if w.dtype != torch.float16 or rest.dtype != torch.float16:
                raise Wrong(f'{what}: w and rest should stay float16')
            off = (w.double() - exact).abs()
            if (off > 1.2*gap).any():
                raise Wrong(f'{what}: after {len(updates)} updates w is off by {off.max():.2g}, more than the next '
                            'half is away')
        return w, rest, exact
    u = torch.full((3,), 1e-4).half()
    w, rest = torch.ones(3).half(), torch.zeros(3).half()
    f(w, rest, u)
    yield same(w, torch.ones(3).half(), 'w after one small update')
    yield same(rest, u, 'the rest after one small update', tol=1e-7)
    w, rest, u = torch.tensor([1., 1., -3.]).half(), torch.zeros(3).half(), torch.tensor([0.3, -0.7, 0.01]).half()
    exact = w.double() + u.double()
    f(w, rest, u)
    yield same(w, exact.half(), 'updates that move w')
    yield same(rest, (exact - exact.half().double()).half(), 'the rest of those', tol=1e-6)
    ones = torch.ones(2, 3)
    run(ones, [1e-4*ones.half()]*400, 'up in small steps')
    yield 'up in small steps'
    run(2*ones, [-1e-4*ones.half()]*400, 'down in small steps')
    yield 'down in small steps'
    w, rest, exact = run(torch.rand(4, 5) + 0.5, [(0.01*torch.randn(4, 5)).half() for _ in range(100)], 'random steps')
    yield same(w.double() + rest.double(), exact, 'random steps, w and rest together', tol=1e-3)


@exercise('09b.3', hints=[
    'bfloat16 is float32 with the lower half of its bits cut off. As an int32, by `view`, a number can be cut, and the '
    'next one is 2**16 further.',
    'What is cut off, divided by 2**16, is the probability. So where does a random integer below 2**16, added before '
    'the cut, carry over?',
    'Cutting is `&` with a mask of 16 ones and 16 zeros, which is -2**16 as an integer. Signs take care of themselves: '
    'the bits after the first are those of the size.'])
def round_randomly(f):
    "Stochastic rounding from float32 to bfloat16."
    def neighbors(x):
        low = (x.view(torch.int32) & -2**16)
        high = torch.where(low == x.view(torch.int32), low, low + 2**16)
        return low.view(torch.float32), high.view(torch.float32)   # towards zero, away from zero
    def case(x, what):
        got = f(x)
        if not isinstance(got, torch.Tensor): raise Wrong(f'{what}: it should give a tensor')
        if got.shape != x.shape: raise Wrong(f'{what}: shape {tuple(got.shape)} instead of {tuple(x.shape)}')
        if got.dtype != torch.bfloat16:
            raise Wrong(f"{what}: dtype {str(got.dtype).removeprefix('torch.')} instead of bfloat16")
        low, high = neighbors(x)
        bad = (got.float() != low) & (got.float() != high)
        if bad.any():
            raise Wrong(f'{what}: {x[bad][0].item():.6g} becomes {got[bad][0].item():.6g}, which is none of its two '
                        'neighbors')
        return what
    def mean(value, what, n=20_000):
        x = torch.full((n,), value)
        low, high = (t[0].double() for t in neighbors(x))
        p = (x[0].double() - low)/(high - low)
        got = f(x).double()
        if len(got.unique()) == 1:
            raise Wrong(f'{what}: {n:,} times {value:g} all become {got[0]:g}; each number should have a draw of its '
                        'own')
        if (got.mean() - value).abs() > 5*(high - low).abs()*(p*(1 - p)/n).sqrt():
            raise Wrong(f'{what}: the mean of {n:,} roundings of {value:g} is {got.mean():.6g}, further off than '
                        'chance explains')
        return what
    yield case(torch.rand(50, 4) + 0.5, 'positive numbers')
    yield case(-10*torch.rand(50, 4), 'negative numbers')
    exact = torch.tensor([0., 1., -1., 2.5, -0.0078125, 2.**100])
    yield same(f(exact), exact.bfloat16(), 'numbers that bfloat16 has')
    yield case(torch.randn(300)*torch.logspace(-20, 20, 300), 'large and small numbers')
    yield mean(1.001, 'the mean')
    yield mean(-1.006, 'the mean, a negative number')
    yield mean(0.9985, 'the mean, just under a power of two')
    yield mean(1e-10, 'the mean, a small number')
    yield same(f(torch.tensor([math.inf, -math.inf])).float(), torch.tensor([math.inf, -math.inf]), 'infinity')


@exercise('09b.4', hints=[
    '`math.frexp` tells the power of two. Divide by the gap of the halves there, and round to an integer: `round` '
    'sends ties to even.',
    'Under 2**-14 the gap stays what it is at 2**-14. That is all there is to subnormals.',
    'That integer is at least 1024 for normal numbers, because of the leading 1. If the exponent field is one less, '
    'the 1 may stay in it, and a carry to the next power of two comes out by itself.',
    '-0.0 is not less than zero: `math.copysign` sees the sign. Where is the middle between 65,504 and what would come '
    'next?'])
def to_half(f):
    "The 16 bits of a float16, by arithmetic."
    def bits(x):
        if abs(x) >= 65520: return 0x7c00 + 0x8000*(x < 0)
        return int.from_bytes(struct.pack('<e', x), 'little')
    def case(xs, what):
        for x in xs:
            got, want = f(x), bits(x)
            if isinstance(got, bool) or not isinstance(got, int):
                raise Wrong(f'{what}: to_half({x!r}) should be an int, and is a {type(got).__name__}')
            if not 0 <= got < 2**16: raise Wrong(f'{what}: to_half({x!r}) gives {got}, which is no number of 16 bits')
            if got != want:
                parts = 'sign', 'exponent', 'fraction'
                a, b = ((n >> 15, n >> 10 & 31, n & 1023) for n in (got, want))
                bad = ' and '.join(part for part, i, j in zip(parts, a, b) if i != j)
                raise Wrong(f'{what}: in to_half({x!r}) the {bad} {"are" if " and " in bad else "is"} not right')
        return what
    def draw(n, low, high):
        return ((torch.rand(n, dtype=torch.float64) + 1)*2.**torch.randint(low, high, (n,))).tolist()
    yield case([1., 2., 1.5, 0.1, 3.14159, 1000.], 'a few numbers')
    yield case([-x for x in draw(50, -14, 15)], 'negative numbers')
    yield case(draw(200, -14, 15), 'numbers of all sizes')
    yield case([1 + 2**-11, 1 + 3*2**-11, 2049., 2051., -2049.], 'ties')
    yield case([1 + 2**-11 + 2**-40, 1 + 3*2**-11 - 2**-40], 'nearly a tie')
    yield case([1.99999, 4095.99, 0.4999999], 'up to the next power of two')
    yield case([0., 2.**-24, 5*2.**-24, 2.**-14 - 2.**-24, *draw(50, -24, -14)], 'subnormal numbers')
    yield case([2.**-25, 3*2.**-25, 1.001*2.**-25, 2.**-14 - 2.**-26, 1e-300], 'the smallest')
    yield case([-0., -1e-300], 'a negative zero')
    yield case([65504., 65519.99, 65520., -65520., 1e300], 'the largest')
    yield case([math.inf, -math.inf], 'infinity')
    got = f(math.nan)
    yield expect(isinstance(got, int) and got & 0x7c00 == 0x7c00 and got & 0x3ff != 0 and 0 <= got < 2**16, 'NaN',
                 'NaN has the highest exponent and any fraction but 0')
