"Checks of the exercises of chapter 09."
import torch
from torch import nn

from .core import Wrong, exercise, expect, same


def marked(answer):
    "The reader's stepper with the marks of its own, for an optimizer to run."
    def step(*args, **kwargs): return answer.f(*args, **kwargs)
    step.__dict__.update(vars(answer.f))
    return step


def keeps_its_hands_off(ps, gs, before):
    "Raise `Wrong` where a stepper that only gives a direction has changed parameters or gradients."
    for name, ts, olds in zip(('parameters', 'gradients'), (ps, gs), before):
        if any(not torch.equal(t, old) for t, old in zip(ts, olds)):
            raise Wrong(f'the {name} are changed in place; a new direction is a list of new tensors')


def as_lists(got, gs, what):
    "What a stepper gave, if it is a list of tensors like `gs`."
    if got is None: raise Wrong(f'{what}: it returns nothing, which leaves the direction as it is')
    return same(list(got) if isinstance(got, tuple) else got, gs, what, tol=1e9)


@exercise('09.1', inplace=True, hints=[
    '`average_grad` keeps the dampened mean. What does Adam divide it by?',
    '`step` counts from 1, and is in what the optimizer hands to each stepper.',
    'The next step goes on from `exp_avg` as it is. Divide into a new list, with `torch._foreach_div`.'])
def honest_momentum(f):
    "Momentum that is a true mean of the gradients from the first step on."
    def walk(mom, n, what):
        ps, avgs, olds = [torch.randn(3, 2), torch.randn(5)], [torch.zeros(3, 2), torch.zeros(5)], []
        for t in range(1, n + 1):
            gs = [torch.randn_like(p) for p in ps]
            olds.append([g.clone() for g in gs])
            before = [p.clone() for p in ps], olds[-1]
            got = f(ps, gs, exp_avg=avgs, mom=mom, step=t, lr=0.1, wd=0., sqr_mom=0.99)
            weights = (1 - mom)*torch.tensor([mom**(t - 1 - i) for i in range(t)])
            sums = [sum(w*o[j] for w, o in zip(weights, olds)) for j in range(2)]
            want = [s/weights.sum() for s in sums]
            keeps_its_hands_off(ps, gs, before)
            as_lists(got, gs, f'{what}, step {t}')
            same(list(got), want, f'{what}, step {t}: the direction')
            same(avgs, sums, f'{what}, step {t}: exp_avg')
        return what
    yield walk(0.9, 1, 'the first step')
    yield walk(0.9, 6, 'six steps')
    yield walk(0.99, 3, 'a longer memory')
    yield walk(0., 2, 'no memory')
    keeps = getattr(f, 'keeps', None)
    yield expect(keeps == 'exp_avg', 'it keeps exp_avg', f'as a stepper it keeps {keeps!r} and should keep '
                 "'exp_avg'; the mark of the stub belongs above it")
    from minidl.optim import StatefulOptimizer, sgd_step
    p = nn.Parameter(torch.zeros(4))
    opt = StatefulOptimizer([p], [marked(f), sgd_step], lr=0.5, momentum=0.9)
    grad = torch.tensor([1., -2., 3., 0.])
    for _ in range(3): p.grad = grad.clone(); opt.step()
    yield same(p.detach(), -1.5*grad, 'in an optimizer, on gradients that stay the same')


@exercise('09.2', hints=[
    'Every row of a matrix of shape (n_out, n_in) loses its own mean; a filter of a convolution likewise, over all '
    'of its numbers.',
    'A tensor with one axis has none to take a mean over. What does `mean` do with an empty list of axes?',
    'The gradients belong to whoever called `backward`: give a list of new tensors. And think whether rows that stay '
    'whole are enough.'])
def centralize(f):
    "Gradients without their mean."
    def ref(g): return g - g.mean(tuple(range(1, g.ndim)), keepdim=True) if g.ndim > 1 else g
    def case(shapes, what):
        ps, gs = [torch.randn(s) for s in shapes], [torch.randn(s) + 1 for s in shapes]
        got = f(ps, gs, lr=0.1, step=1)
        as_lists(got, gs, what)
        return same(list(got), [ref(g) for g in gs], what)
    yield case([(4, 4)], 'a matrix')
    yield case([(3, 5), (2, 7)], 'two matrices')
    yield case([(4, 3, 3, 2)], 'filters of a convolution')
    yield case([(5, 3), (5,), (2, 3, 4)], 'with a bias among them')
    yield case([(1, 6), (6, 1)], 'a single row, and a single column')
    from minidl.optim import CHUNK, StatefulOptimizer, sgd_step
    n = 4*CHUNK//1000 + 50
    p = nn.Parameter(torch.zeros(n, 1000))
    p.grad = torch.randn(n, 1000) + torch.arange(n)[:, None]/n
    want = -(p.grad - p.grad.mean(1, keepdim=True))
    StatefulOptimizer([p], [marked(f), sgd_step], lr=1.).step()
    yield same(p.detach(), want, 'a matrix that the optimizer takes in pieces', tol=1e-4)


@exercise('09.3', hints=[
    'Two steppers and one that is there: one keeps a sum, one divides by its root, the last moves.',
    'The sum is `average_sqr_grad` without forgetting: nothing is multiplied, and the square counts in full.',
    '`eps` stands outside of the root, as in `rms_ratio`. The groups should have the keys `lr` and `eps`.'])
def Adagrad(f):
    "Adagrad, made of steppers."
    def case(what, n=50, groups=list, scale=1., **kwargs):
        ps = [torch.randn(s, dtype=torch.float64) for s in [(4, 3), (5,), (2, 2, 2)]]
        qs = [nn.Parameter(p.clone()) for p in ps]
        ps = [nn.Parameter(p) for p in ps]
        opts = f(groups(ps), **kwargs), torch.optim.Adagrad(groups(qs), **kwargs)
        for i in range(n):
            for j, (p, q) in enumerate(zip(ps, qs)):
                g = torch.randn_like(p)*scale*10**(1 - j)
                if j == 1 and i < 10: continue
                p.grad, q.grad = g.clone(), g.clone()
            for opt in opts: opt.step()
            if i == 0: same(ps[0].detach(), qs[0].detach(), f'{what}: after one step')
        return same([p.detach() for p in ps], [q.detach() for q in qs], what, tol=1e-5)
    if not isinstance(made := f([nn.Parameter(torch.zeros(2))], lr=0.1), torch.optim.Optimizer):
        raise Wrong(f'it makes a {type(made).__name__}, and no optimizer; derive it from `StatefulOptimizer`')
    yield case('50 steps', lr=0.1)
    yield case('a large eps', lr=0.1, eps=0.5)
    yield case('a tiny gradient', lr=0.01, eps=1e-3, scale=1e-3)
    yield case('two groups', lr=0.1, groups=lambda ps: [dict(params=ps[:1], lr=0.01), dict(params=ps[1:])])
    p = nn.Parameter(torch.ones(3))
    opt = f([p], lr=0.1)
    p.grad = torch.tensor([0., 1., -2.]); opt.step()
    yield same(p.detach(), torch.tensor([1., 0.9, 1.1]), 'a gradient of zero')


@exercise('09.4', hints=[
    'A running statistic `exp_avg`, and two means: one for the sign, made of the statistic as it was, and one for the '
    'next step. Which of the two betas is for which?',
    '`mom` and `sqr_mom` are what a stepper sees of `betas`. Take the sign of a new list, then update the statistic '
    'in place.',
    'The weight decay is decoupled, as in AdamW. `decay_weights` does it, in front of the others.'])
def Lion(f):
    "Lion, which steps along a sign."
    def by_the_paper(x, grads, lr, b1, b2, wd):
        m = torch.zeros_like(x)
        for g in grads:
            c = (b1*m + (1 - b1)*g).sign()
            m = b2*m + (1 - b2)*g
            x = x - lr*(c + wd*x)
        return x
    def case(what, n=30, lr=0.1, **kwargs):
        betas, wd = kwargs.get('betas', (0.9, 0.99)), kwargs.get('weight_decay', 0.)
        xs = [torch.randn(4, 3, dtype=torch.float64), torch.randn(6, dtype=torch.float64)]
        ps = [nn.Parameter(x.clone()) for x in xs]
        opt, grads = f(ps, lr, **kwargs), []
        if not isinstance(opt, torch.optim.Optimizer):
            raise Wrong(f'it makes a {type(opt).__name__}, and no optimizer; derive it from `StatefulOptimizer`')
        for i in range(n):
            grads.append([torch.randn_like(x)*10**(i % 3) for x in xs])
            for p, g in zip(ps, grads[-1]): p.grad = g.clone()
            opt.step()
            if any(not torch.equal(p.grad, g) for p, g in zip(ps, grads[-1])):
                raise Wrong('gradients are changed in place')
        want = [by_the_paper(x, gs, lr, *betas, wd) for x, gs in zip(xs, zip(*grads))]
        return same([p.detach() for p in ps], want, what, tol=1e-6)
    yield case('one step', n=1)
    yield case('thirty steps')
    yield case('other betas', betas=(0.5, 0.8))
    yield case('weight decay', weight_decay=0.3)
    p = nn.Parameter(torch.ones(2))
    opt = f([p], lr=0.1)
    for g in [1., 0.], [-1., 0.], [-1., 0.]: p.grad = torch.tensor(g); opt.step()
    yield same(p.detach(), torch.tensor([1.1, 1.]), 'no gradient, no step', tol=1e-5)
