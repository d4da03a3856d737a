"Checks of the exercises of chapter 10a."
import torch
import torch.nn.functional as F
from torch import nn

from .core import Wrong, exercise, expect, raises, same


def _net():
    "A body of three children, with norm layers of several kinds, and a head."
    def conv(ni, nf, ks=3): return nn.Conv2d(ni, nf, ks, bias=False)   # a bias before a norm would not move
    body = nn.Sequential(nn.Sequential(conv(1, 4), nn.BatchNorm2d(4), nn.ReLU()),
                         nn.Sequential(conv(4, 6), nn.GroupNorm(2, 6), nn.ReLU()),
                         nn.Sequential(conv(6, 5), nn.Sequential(conv(5, 5, 1), nn.BatchNorm2d(5))))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(5), nn.Linear(5, 3))
    return nn.Sequential(body, head)


@exercise('10a.1', inplace=True, hints=[
    '`named_parameters` and `named_buffers` give names and tensors. What you keep of them before the call must not '
    'change with the model.',
    'Whether a parameter *may* move is another question than whether it did.'])
def what_moves(f):
    "Which parameters and which buffers of a model something changes."
    x, targ = torch.randn(8, 1, 9, 9), torch.randint(0, 3, (8,))
    def train(model):
        model.train()
        opt = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        F.cross_entropy(model(x), targ).backward()
        opt.step()
    def names(model, wanted): return [n for n, _ in wanted(model)]
    parameters, buffers = nn.Module.named_parameters, nn.Module.named_buffers
    model = _net()
    yield same(f(model, train), (names(model, parameters), names(model, buffers)), 'a step of training')
    model = _net()
    for p in model[0].parameters(): p.requires_grad_(False)
    head = [n for n in names(model, parameters) if n.startswith('1.')]
    yield same(f(model, train), (head, names(model, buffers)), 'a frozen body')
    model = _net()
    yield same(f(model, lambda m: m.eval()(x)), ([], []), 'a prediction in evaluation mode')
    def one_number(model):
        with torch.no_grad(): model[0][1][0].weight[2, 1, 0, 0] += 1
    yield same(f(model, one_number), (['0.1.0.weight'], []), 'a single number')
    def there_and_back(model):
        with torch.no_grad(): model[1][3].bias.neg_().neg_()
    yield same(f(model, there_and_back), ([], []), 'what moves and comes back')
    def only_statistics(model):
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d): m.reset_running_stats()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d): m.running_mean += 1
    means = [n for n in names(model, buffers) if n.endswith('running_mean') and n.startswith('0.')]
    yield same(f(model, only_statistics), ([], means), 'running means alone')


@exercise('10a.2', hints=[
    'A convolution adds up, over its input channels, what each of them gives. If all the channels are the same '
    'picture, which one kernel gives that?',
    'The new layer needs all the settings of the old one. They are its attributes, under the names of the arguments.',
    'Whoever trains the new layer should not train the old one with it: copies, for the bias too.'])
def gray_conv(f):
    "A first layer that was trained on colors, for gray pictures."
    def case(what, c_in=3, size=(9, 12), dtype=torch.float32, **kwargs):
        conv = nn.Conv2d(c_in, 5, **({'kernel_size': 3} | kwargs)).to(dtype)
        new = f(conv)
        if not isinstance(new, nn.Conv2d): raise Wrong(f'{what}: it should give an nn.Conv2d')
        if new.in_channels != 1 or new.weight.shape[1] != 1:
            raise Wrong(f'{what}: the new layer takes {new.in_channels} channels, and its weight has shape '
                        f'{tuple(new.weight.shape)}')
        x = torch.randn(2, 1, *size, dtype=dtype)
        same(new(x).detach(), conv(x.expand(-1, c_in, -1, -1)).detach(), what)
        names = [n for n, _ in conv.named_parameters()]
        if [n for n, _ in new.named_parameters()] != names:
            raise Wrong(f'{what}: it should have the parameters of the old layer, {" and ".join(names)}')
        if not all(p.requires_grad and p.is_leaf for p in new.parameters()):
            raise Wrong(f'{what}: its parameters cannot be trained')
        return conv, new, what
    yield case('a layer for colors')[2]
    yield case('no bias', bias=False)[2]
    yield case('stride and padding', stride=2, padding=1)[2]
    odd = dict(kernel_size=(5, 2), stride=(1, 3), padding=(2, 0))
    yield case('five channels, a kernel that is no square', c_in=5, **odd)[2]
    yield case('dilation', dilation=2, padding='same')[2]
    yield case('another kind of padding', padding=1, padding_mode='circular')[2]
    yield case('float64', dtype=torch.float64)[2]
    conv, new, _ = case('a copy')
    before = [p.detach().clone() for p in conv.parameters()]
    with torch.no_grad():
        for p in new.parameters(): p += 1
    yield expect(all(torch.equal(p, b) for p, b in zip(conv.parameters(), before)), 'the old layer is left alone',
                 'who trains the new layer changes the old one; they share a parameter')
    yield expect(conv.in_channels == 3 and conv.weight.shape[1] == 3, 'and keeps its shape', 'the old layer is changed')


@exercise('10a.3', hints=[
    '`bn_splitter` knows which parameters are to be free, `body_splitter` how to cut. Call both.',
    'Tensors are compared number by number: `p in group` does not say whether a parameter is in a list. Compare '
    'by `id`.'])
def piece_splitter(f):
    "The body in pieces without its norm layers, and these with the head."
    def case(model, cuts, want, what, **kwargs):
        groups = f(model, cuts, **kwargs) if cuts is not None else f(model)
        if not isinstance(groups, (list, tuple)): raise Wrong(f'{what}: it should give a list of lists')
        if len(groups) != len(want): raise Wrong(f'{what}: {len(groups)} groups instead of {len(want)}')
        groups, name = [list(g) for g in groups], {id(p): n for n, p in model.named_parameters(remove_duplicate=False)}
        where = {}
        for i, g in enumerate(groups):
            for p in g:
                if not isinstance(p, nn.Parameter): raise Wrong(f'{what}: group {i} holds what is no parameter')
                if id(p) not in name: raise Wrong(f'{what}: group {i} holds a parameter that the model does not have')
                if id(p) in where: raise Wrong(f'{what}: {name[id(p)]} is there twice; it would be stepped twice')
                where[id(p)] = i
        should = {id(p): i for i, modules in enumerate(want) for m in modules for p in m.parameters(recurse=False)}
        for i, n in name.items():
            if i not in where: raise Wrong(f'{what}: {n} is in no group')
            if where[i] != should[i]:
                raise Wrong(f'{what}: {n} is in group {where[i]} of {len(groups)}, and should not be')
        return what
    model = _net()
    body, head = model
    convs, norms = [body[0][0], body[1][0], body[2][0], body[2][1][0]], [body[0][1], body[1][1], body[2][1][1]]
    yield case(model, [1, 2], [convs[:1], convs[1:2], convs[2:], [*norms, *head]], 'three pieces')
    yield case(model, [2], [convs[:2], convs[2:], [*norms, *head]], 'two pieces')
    yield case(model, (), [convs, [*norms, *head]], 'no cuts')
    yield case(model, None, [convs, [*norms, *head]], 'no cuts, by default')
    from ..norm import BatchNorm, LayerNorm
    model[0][0][1], model[0][1][1] = BatchNorm(4), LayerNorm(6)
    norms[:2] = body[0][1], body[1][1]
    yield case(model, [1], [convs[:1], convs[1:], [*norms, *head]], 'the norm layers of chapter 07a')
    yield raises(ValueError, f, model, [2, 2], what='cuts that leave a piece empty')


@exercise('10a.4', hints=[
    'Begin with `timm_key`. What is different: the stem, and what stands in a shortcut before its convolution.',
    'Their shortcut is a convolution of stride 2 and a norm, `downsample.0` and `downsample.1`. In ours a pool '
    'comes first, wherever the stage halves the picture.',
    'Stage 1 does not halve it. And the stem: does a 7x7 kernel fit anywhere?'])
def torchvision_key(f):
    "torchvision's names for the tensors of a ResNet."
    def case(what, **pairs):
        for theirs, ours in pairs.items():
            got = f(theirs)
            if not isinstance(got, str): raise Wrong(f'{what}: {theirs!r} gives {type(got).__name__}, not a name')
            if got != ours: raise Wrong(f'{what}: {theirs!r} becomes {got!r}')
        return what
    yield case('convolutions', **{'layer1.0.conv1.weight': '4.0.convs.0.0.weight',
                                  'layer3.1.conv2.weight': '6.1.convs.1.0.weight'})
    yield case('norms', **{'layer4.1.bn2.running_var': '7.1.convs.1.1.running_var',
                           'layer2.0.bn1.num_batches_tracked': '5.0.convs.0.1.num_batches_tracked'})
    yield case('the linear layer', **{'fc.weight': '10.weight', 'fc.bias': '10.bias'})
    yield case('shortcuts', **{'layer2.0.downsample.0.weight': '5.0.shortcut.1.0.weight',
                               'layer4.0.downsample.1.bias': '7.0.shortcut.1.1.bias'})
    yield case('the shortcut of stage 1, in a ResNet-50', **{'layer1.0.downsample.0.weight': '4.0.shortcut.0.0.weight',
                                                             'layer1.0.downsample.1.bias': '4.0.shortcut.0.1.bias'})
    yield case('blocks from 10 on', **{'layer3.22.bn3.bias': '6.22.convs.2.1.bias'})
    yield case('the stem has no counterpart', **{k: k for k in ('conv1.weight', 'bn1.weight', 'bn1.running_mean')})
    from ..xresnet import xresnet18
    left = [k for k in xresnet18(width=0.125).state_dict() if int(k.split('.')[0]) >= 4]
    def theirs(key):
        parts = key.split('.')
        if parts[0] == '10': return f'fc.{parts[1]}'
        s, b, path, n, kind, name = parts
        inner = f'downsample.{kind}' if path == 'shortcut' else f"{'bn' if kind == '1' else 'conv'}{int(n) + 1}"
        return f'layer{int(s) - 3}.{b}.{inner}.{name}'
    yield case('all of a ResNet-18', **{theirs(k): k for k in left})
