"Checks of the exercises of chapter 02."
import math

import torch
import torch.nn.functional as F

from .core import Wrong, exercise, expect, same


@exercise('02.1', hints=[
    'The gradient has the shape of `x`, one number for each number in `x`. `torch.zeros_like(x)` is a place to '
    'put them.',
    'Move one number up by eps and down by eps, call `f` on both, and divide the difference by how far apart the '
    'two points are.',
    '`x.flatten()` and `view_as` let one loop serve every shape. Move the numbers of a clone, so that `x` stays '
    'as it is.'])
def numeric_grad(f):
    "A gradient by moving each number a little."
    a = torch.randn(3, 4, dtype=torch.float64)
    cases = {'a square': (lambda x: (x**2).sum(), torch.randn(5, dtype=torch.float64)),
             'a matrix': (lambda x: (a*x).sin().sum(), torch.randn(3, 4, dtype=torch.float64)),
             'a single number': (lambda x: x.exp(), torch.tensor(0.5, dtype=torch.float64)),
             'three axes, a product': (lambda x: x.prod(), torch.rand(2, 1, 3, dtype=torch.float64) + 0.5)}
    for what, (g, x) in cases.items():
        leaf = x.clone().requires_grad_()
        want, = torch.autograd.grad(g(leaf), leaf)
        yield same(f(g, x), want, what, tol=1e-5)
    ones = torch.ones(2, dtype=torch.float64)
    yield same(f(lambda x: (x**3).sum(), ones, eps=0.1), 3.01*ones, 'x**3 with eps=0.1, by central differences')


@exercise('02.2', hints=[
    'forward: with p the sigmoid of a logit, an image that is a 3 costs -log(p), one that is a 7 costs -log(1 - '
    'p); then the mean.',
    'grad: the section "A better loss" says what is left when the logarithm meets the sigmoid. That was one '
    'image; what does the mean over n do to it?',
    'grad is handed g, the gradient of whatever comes after the loss. Multiply by it, as `Mse` does.'])
def Bce(f):
    "Binary cross-entropy as a layer, with its gradient."
    loss = f()
    for attr in 'forward', 'grad', 'backward':
        if not hasattr(loss, attr):
            raise Wrong(f'it has no `{attr}`; derive it from `Module`, and write `forward` and `grad`')
    logits, targ = 2*torch.randn(6, 1), torch.tensor([0., 1., 1., 0., 1., 0.])[:, None]
    before = logits.clone()
    leaf = logits.clone().requires_grad_()
    want = F.binary_cross_entropy_with_logits(leaf, targ)
    want.backward()
    yield same(loss(logits, targ), want.detach(), 'forward')
    yield same(loss.backward(), leaf.grad, 'backward')
    yield same(loss.backward(0.5), 0.5*leaf.grad, 'backward with g = 0.5')
    yield expect(torch.equal(logits, before), 'the logits are left alone', 'the logits are changed in place')
    logits, targ = torch.randn(64, 1), torch.randint(0, 2, (64, 1)).float()
    leaf = logits.clone().requires_grad_()
    F.binary_cross_entropy_with_logits(leaf, targ).backward()
    loss(logits, targ)
    yield same(loss.backward(), leaf.grad, 'another batch size')


@exercise('02.3', hints=[
    'Where the output is positive, was the input positive?',
    '`Module.__call__` is what stores the arguments. Write your own `__call__`, and let `backward` use what it stored.',
    'Nothing that the object holds may be the input: neither `self.args` nor anything else.'])
def ReluOut(f):
    "A ReLU that keeps its output instead of its input."
    relu = f()
    x = torch.randn(64, 30)
    before, g = x.clone(), torch.randn(64, 30)
    out = relu(x)
    yield same(out, x.relu(), 'forward')
    yield expect(torch.equal(x, before), 'the input is left alone',
                 'the input is changed in place; someone else may need it')
    yield same(relu.backward(g), g*(x > 0), 'backward')
    kept, todo = {}, list(vars(relu).values())
    while todo:
        v = todo.pop()
        if isinstance(v, (list, tuple)): todo += v
        if isinstance(v, dict): todo += v.values()
        if isinstance(v, torch.Tensor): kept[v.untyped_storage().data_ptr()] = v.untyped_storage().nbytes()
    yield expect(x.untyped_storage().data_ptr() not in kept, 'the input is not kept', 'the layer still holds its input')
    extra = sum(n for ptr, n in kept.items() if ptr != out.untyped_storage().data_ptr())
    yield expect(not extra, 'nothing but the output is kept',
                 f'besides its output the layer holds {extra:,} bytes that it does not need')


@exercise('02.5', hints=[
    'Descend as the chapter does: s = (t - mean)/std, three parameters, the gradient of the mean squared error.',
    'Then a*s**2 + b*s + c is a polynomial in t as well. Put (t - mean)/std in, multiply out, and collect the '
    'powers of t.',
    'Divide by std twice for the square. The constant gets three contributions.'])
def fit_quadratic(f):
    "A parabola, fitted in standardized units and given back in the original ones."
    def case(t, a, b, c, what, noise=0., steps=400):
        t = t.float()
        y = a*t**2 + b*t + c + noise*torch.randn(len(t))
        got = f(t, y, 0.2, steps)
        if not isinstance(got, tuple) or len(got) != 3: raise Wrong(f'{what}: it should give a tuple of three numbers')
        got = [float(g) for g in got]
        X = torch.stack([t**2, t, torch.ones_like(t)], 1).double()
        exact = torch.linalg.lstsq(X, y.double()[:, None]).solution[:, 0]
        if any(not math.isfinite(g) for g in got): raise Wrong(f'{what}: NaN or infinite')
        pred = got[0]*t**2 + got[1]*t + got[2]
        best = (exact[0]*t**2 + exact[1]*t + exact[2] - y).pow(2).mean()
        loss = (pred - y).pow(2).mean()
        if loss > 1.05*best + 1e-3*y.var():
            raise Wrong(f'{what}: the parabola misses the points: mean squared error {loss:.2g}, best {best:.2g}')
        return what
    yield case(torch.linspace(-1, 1, 30), 1., -2., 0.5, 't around 0')
    yield case(torch.linspace(0, 20, 41), 0.15, -2.7, 13.15, 'the roller coaster', noise=1.2)
    yield case(torch.linspace(40, 60, 25), 0.1, -8., 3., 't far from 0')
    t = torch.linspace(0, 20, 41)
    y = 0.15*t**2 - 2*t + 3
    def loss(steps):
        a, b, c = (float(v) for v in f(t, y, 0.05, steps))
        return (a*t**2 + b*t + c - y).pow(2).mean()
    few, more = loss(1), loss(30)
    yield expect(more < few, '`steps` is what it says', '30 steps fit no better than one; is `steps` used?')
