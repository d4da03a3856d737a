"Bodies, heads, freezing, parameter groups and weights from elsewhere (chapter 10a)."
import json
import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from minidl import xresnet
from minidl.data import ImageDataLoaders, ImageList, Resize, SplitData, label_by_func
from minidl.datasets import get_data
from minidl.learner import Callback, CancelFit, Learner, load_learner, register, write_tensors
from minidl.mixup import LabelSmoothingCrossEntropy
from minidl.norm import BatchNorm
from minidl.training import get_dls
from minidl.transfer import (AdaptiveConcatPool2d, DebugCallback, KeepNormStats, adapt_model, bn_splitter,
                             body_splitter, count_features, cut_model, cut_point, find_keymap, load_pretrained,
                             new_head, read_weights, set_grad)
from minidl.xresnet import XResNet, cnn_learner

# what timm 1.0.31 and fastai 2.8.12 write
KEYS = json.loads(Path(__file__).with_name('transfer_keys.json').read_text())
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
STEM = dict(stem_szs=(32, 32, 64))


@register
def tiny(c_in=3, c_out=4): return XResNet.create(1, [1, 1], c_in, c_out, width=0.125)


def loaders(n=12, c_in=3, classes=3, bs=4):
    gen = torch.Generator().manual_seed(0)
    ds = TensorDataset(torch.randn(n, c_in, 16, 16, generator=gen) + 2, torch.arange(n) % classes)
    return get_dls(ds, ds, bs=bs)


def learner(adapt=True, device='cpu', **kwargs):
    torch.manual_seed(0)
    learn = Learner(tiny(), loaders(classes=4), F.cross_entropy, progress=False, device=device, **kwargs)
    return adapt_model(learn, loaders(), 3) if adapt else learn


def state(m): return {k: v.detach().clone() for k, v in m.state_dict().items()}
def changed(m, before): return {k for k, v in m.state_dict().items() if not torch.equal(v.cpu(), before[k].cpu())}
def is_norm(name): return name.split('.')[-2] == '1'
def trainable(m): return {n for n, p in m.named_parameters() if p.requires_grad}


# ---- cutting, heads, adapting

def test_the_cut_is_before_the_last_pool_and_shares_the_layers():
    model = tiny()
    body = cut_model(model)
    assert cut_point(model) == len(body) == 6 and body[0] is model[0] and not isinstance(body, XResNet)
    assert list(body.state_dict()) == [k for k in model.state_dict() if not k.startswith('8.')]
    two = nn.Sequential(body, new_head(16, 2))
    assert cut_model(two) is body
    inner = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(4), nn.Conv2d(3, 3, 1), nn.AdaptiveMaxPool2d(1),
                          nn.Flatten())
    assert cut_point(inner) == 3


@pytest.mark.parametrize('model', [nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.Sequential(),
                                   nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Linear(2, 2))])
def test_what_cannot_be_cut_is_refused_with_a_sentence(model):
    with pytest.raises(ValueError, match='cannot be cut'): cut_model(model)


def test_concat_pool_is_maximum_and_mean():
    x = torch.randn(2, 3, 5, 4)
    assert_close(AdaptiveConcatPool2d()(x), torch.cat([x.amax((2, 3), True), x.mean((2, 3), True)], 1))


def test_counting_features_leaves_modes_and_statistics_alone():
    body = cut_model(tiny())
    body[1].eval()
    before, modes = state(body), [m.training for m in body.modules()]
    assert count_features(body, torch.randn(4, 3, 16, 16)) == 16
    assert not changed(body, before) and [m.training for m in body.modules()] == modes
    with pytest.raises(ValueError, match='cannot take these pictures'): count_features(body, torch.randn(4, 1, 16, 16))
    assert [m.training for m in body.modules()] == modes
    with pytest.raises(ValueError, match=r'give \(bs, nf, h, w\)'):
        count_features(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.randn(4, 1, 2, 2))
    class Pair(nn.Conv2d):
        def forward(self, x): return super().forward(x), x
    with pytest.raises(ValueError, match=r'give \(bs, nf, h, w\), and this one gives a tuple'):
        count_features(Pair(1, 2, 1), torch.randn(4, 1, 2, 2))
    with pytest.raises(ValueError, match='no parameters'): count_features(nn.ReLU(), torch.randn(4, 1, 2, 2))


def labeled(labels):
    "Eight pictures with these labels, repeated."
    items = [(torch.randint(0, 256, (3, 16, 16)).byte(), labels[i % len(labels)]) for i in range(8)]
    named = {id(x): y for x, y in items}
    il = ImageList([x for x, _ in items])
    return label_by_func(SplitData(il, il), lambda x: named[id(x)]).to_dls(4)


def test_a_loss_for_another_kind_of_targets_is_exchanged_and_one_that_fits_is_kept():
    classes, several, numbers = map(labeled, (['a', 'b'], [['a'], ['a', 'b'], ['b']], [1.5, 2.5]))
    learn = cnn_learner(tiny, classes, metrics=[], progress=False, device='cpu')
    wanted = [(several, F.binary_cross_entropy_with_logits), (numbers, F.mse_loss), (classes, F.cross_entropy)]
    for dls, loss_func in wanted:
        assert adapt_model(learn, dls).loss_func is loss_func
        learn.fit(1)
        assert learn.recorder.values[-1]['train_loss'] > 0.01
    for own in LabelSmoothingCrossEntropy(), lambda pred, targ: F.cross_entropy(pred, targ):
        learn.loss_func = own
        assert adapt_model(learn, classes).loss_func is own
    assert adapt_model(learn, loaders(), 3).loss_func is own     # no pipe that would know


def test_adapting_keeps_the_body_and_forgets_the_optimizer():
    learn = learner(adapt=False).fit(1)
    before = state(cut_model(learn.model))
    assert adapt_model(learn, loaders(), 3, drop=0.5) is learn
    assert learn.opt is None and not changed(learn.model[0], before)
    assert learn.model(torch.randn(2, 3, 16, 16)).shape == (2, 3)
    assert any(isinstance(m, nn.Dropout) for m in learn.model.modules())
    learn.fit(1)
    assert {id(p) for g in learn.opt.param_groups for p in g['params']} == {id(p) for p in learn.model.parameters()}


@pytest.mark.parametrize('dls, c_out, error, words', [
    (loaders(), None, ValueError, 'Give c_out'), (loaders(c_in=1), 3, ValueError, 'cannot take these pictures'),
    (TensorDataset(torch.zeros(1)), 3, TypeError, 'not a TensorDataset'), (None, 3, TypeError, 'not a NoneType')])
def test_wrong_loaders_get_a_sentence_and_leave_the_learner_as_it_was(dls, c_out, error, words):
    learn = learner(adapt=False)
    model, old_dls, before = learn.model, learn.dls, state(learn.model)
    with pytest.raises(error, match=words): adapt_model(learn, dls, c_out)
    assert learn.model is model and learn.dls is old_dls and learn.splitter is None and not changed(model, before)


def test_a_splitter_that_does_not_fit_leaves_the_learner_as_it_was():
    learn = learner(adapt=False)
    model = learn.model
    with pytest.raises(ValueError, match='leaves out'): adapt_model(learn, loaders(), 3, splitter=lambda m: [m[1]])
    assert learn.model is model


def test_the_pipe_knows_the_number_of_outputs_and_an_adapted_learner_exports(tmp_path):
    dls = ImageDataLoaders.from_name_func(get_data('pets')/'images', None, lambda fn: fn.rsplit('_', 1)[0], p_valid=0.5,
                                          tfms=[Resize(16)])
    learn = adapt_model(learner(adapt=False), dls)
    adapt_model(learn, dls)   # twice: only the head is exchanged
    assert learn.model[1][-1].out_features == 8 and len(learn.model) == 2
    assert not isinstance(learn.model[0][0][0], nn.Sequential)
    learn.export(tmp_path/'m')
    again, x = load_learner(tmp_path/'m', device='cpu'), torch.randn(2, 3, 16, 16)
    assert_close(again.model(x), learn.model.eval()(x))


# ---- freezing: what trains at each step

def test_a_frozen_body_keeps_its_weights_but_not_its_statistics():
    learn = learner()
    for p in learn.model[0].parameters(): p.requires_grad_(False)
    before = state(learn.model)
    learn.fit(1, lr=0.1)
    moved = changed(learn.model, before)
    assert {'1.2.weight', '1.2.bias'} <= moved and '0.0.1.running_mean' in moved
    assert not moved & {n for n, _ in learn.model[0].named_parameters(prefix='0')}


def test_with_statistics_kept_only_the_head_moves_and_a_validation_in_between_changes_nothing():
    class Validates(Callback):
        def after_batch(self, learn):
            if learn.training and learn.iter == 0: learn.validate()
    learn = learner()
    for p in learn.model[0].parameters(): p.requires_grad_(False)
    before = state(learn.model)
    learn.fit(2, lr=0.1, cbs=[KeepNormStats(), Validates()])
    assert changed(learn.model, before) == {'1.2.weight', '1.2.bias'}


def test_keeping_statistics_does_not_touch_norms_that_train():
    learn = learner().freeze()   # bn_splitter: norms are free
    before = state(learn.model)
    learn.fit(1, lr=0.1, cbs=KeepNormStats())
    assert '0.0.1.running_mean' in changed(learn.model, before)


def test_a_norm_without_parameters_is_never_frozen_and_goes_on_counting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 3))
    Learner(model, loaders(), F.cross_entropy, progress=False, device='cpu').fit(1, cbs=KeepNormStats())
    assert model[2].num_batches_tracked == 3


def test_set_grad_frees_linear_and_norm_layers_and_the_head_always_trains():
    learn = learner()
    set_grad(learn.model[0], False)
    assert trainable(learn.model) == {n for n, _ in learn.model.named_parameters() if n.startswith('1.') or is_norm(n)}
    before = state(learn.model)
    learn.fit(1, lr=0.1)
    moved = changed(learn.model, before)
    assert {'1.2.weight', '1.2.bias', '0.0.1.weight', '0.4.0.convs.0.1.bias'} <= moved
    assert not any(k.endswith('.0.weight') for k in moved)   # no convolution
    assert all(p.requires_grad for p in set_grad(learn.model[0], True).parameters())


def test_set_grad_works_through_apply_too_and_on_every_kind_of_norm():
    kinds = [nn.BatchNorm2d(4), nn.SyncBatchNorm(4), nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4),
             nn.LayerNorm(4), BatchNorm(4), nn.Linear(2, 2)]
    for freeze in (lambda m: set_grad(m, False), lambda m: m.apply(partial(set_grad, b=False))):
        m = nn.Sequential(nn.Conv2d(4, 4, 1), *kinds, nn.Embedding(3, 2))
        freeze(m)
        trained = [i for i, c in enumerate(m) if all(p.requires_grad for p in c.parameters())]
        assert trained == list(range(1, 1 + len(kinds)))


def test_integer_parameters_are_neither_frozen_nor_freed():
    m = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Linear(2, 2))
    for o in m: o.cols = nn.Parameter(torch.tensor([1, 3]), requires_grad=False)
    for b in False, True:
        set_grad(m, b)
        assert trainable(m) == {'1.weight', '1.bias'} | ({'0.weight', '0.bias'} if b else set())


def test_a_parameter_that_a_free_layer_shares_stays_free():
    emb, lin = nn.Embedding(5, 3), nn.Linear(3, 5)
    lin.weight = emb.weight
    for m in (nn.Sequential(emb, lin), nn.Sequential(lin, emb)):
        set_grad(m, False)
        assert emb.weight.requires_grad


# ---- groups

@pytest.mark.parametrize('splitter, n',
                         [(bn_splitter, 2), (body_splitter, 2), (partial(body_splitter, cuts=[4, 5]), 4)])
@pytest.mark.parametrize('adapt', [True, False])
def test_splitters_put_each_parameter_into_one_group(splitter, n, adapt):
    model = learner(adapt).model
    groups = splitter(model)
    ids = [id(p) for g in groups for p in g]
    assert len(groups) == n and all(groups) and len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters()}


def test_bn_splitter_sets_norms_apart_and_freezing_is_set_grad_on_the_body():
    model = learner().model
    names = {id(p): n for n, p in model.named_parameters()}
    body, rest = ([names[id(p)] for p in g] for g in bn_splitter(model))
    assert all(n.endswith('.0.weight') for n in body)
    assert {n for n in rest if n.startswith('1.')} == {'1.2.weight', '1.2.bias'}
    a, b = learner().freeze(), learner()
    set_grad(b.model[0], False)
    assert trainable(a.model) == trainable(b.model) and trainable(a.unfreeze().model) == set(names.values())


def test_shared_layers_are_in_the_later_group_once():
    conv = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(nn.Sequential(conv, conv, nn.BatchNorm2d(4)), nn.Sequential(conv, nn.Flatten()))
    for groups in (bn_splitter(model), body_splitter(model)):
        assert [sum(p is conv.weight for p in g) for g in groups] == [0, 1]
    assert sum(len(g) for g in bn_splitter(model)) == 4


@pytest.mark.parametrize('cuts', [[0], [9], [3, 3], [4, 2]])
def test_cuts_that_leave_a_piece_empty_are_refused(cuts):
    with pytest.raises(ValueError, match='should rise'): body_splitter(learner().model, cuts)


def test_rate_zero_freezes_bit_for_bit_and_still_computes_gradients():
    learn = learner()
    before = state(learn.model)
    learn.fit_one_cycle(2, [0., 0.1], wd=0.1)
    body, rest = bn_splitter(learn.model)
    names = {id(p): n for n, p in learn.model.named_parameters()}
    moved = changed(learn.model, before)
    assert not moved & {names[id(p)] for p in body} and {names[id(p)] for p in rest} <= moved
    assert all(p.grad is not None for p in body)


def test_each_group_goes_through_the_cycle_at_its_own_height():
    learn = learner().fit_one_cycle(2, slice(1e-3, 1e-1))
    low, high = zip(*learn.recorder.lrs)
    assert max(high) > 0.09 and all(abs(b/a - 100) < 1e-6 for a, b in zip(low, high))


# ---- DebugCallback

def test_debugging_runs_last_and_may_cancel():
    order, rates = [], []
    class Late(Callback):
        order = 99
        def before_batch(self, learn): order.append('late')
    def look(learn):
        order.append('debug')
        rates.extend(g['lr'] for g in learn.opt.param_groups)
        raise CancelFit
    learn = learner()
    before = state(learn.model)
    learn.fit_one_cycle(3, slice(0.01, 0.1), cbs=[DebugCallback('before_batch', look), Late()])
    assert order == ['late', 'debug'] and and_close(rates, [0.01/25, 0.1/25]) and not changed(learn.model, before)


def and_close(a, b): return all(abs(x - y) < 1e-9 for x, y in zip(a, b)) and len(a) == len(b)


def test_without_a_function_the_debugger_opens_once_with_the_learner_at_hand(monkeypatch):
    import sys
    seen = []
    monkeypatch.setattr(sys, 'breakpointhook', lambda *a, **k: seen.append(sys._getframe(1).f_locals.get('learn')))
    learn = learner().fit(1, cbs=DebugCallback('after_fit'))
    assert seen == [learn]


def test_an_unknown_event_is_refused_with_the_near_miss():
    with pytest.raises(ValueError, match="Did you mean 'after_batch'"): DebugCallback('after_bach')


# ---- fine_tune

def test_fine_tune_freezes_then_frees_with_a_slower_body():
    trains, rates = [], []
    class See(Callback):
        def before_train(self, learn): trains.append(sum(p.requires_grad for p in learn.model.parameters()))
        def before_step(self, learn): rates.append([g['lr'] for g in learn.opt.param_groups])
    learn = learner()
    n_free, n_all = len(bn_splitter(learn.model)[1]), len(list(learn.model.parameters()))
    assert learn.fine_tune(2, 0.1, cbs=See()) is learn
    assert trains == [n_free, n_all, n_all]
    assert all(a == b for a, b in rates[:3]) and all(abs(b/a - 5) < 1e-6 for a, b in rates[3:])
    assert not any(isinstance(c, See) for c in learn.cbs)


def test_fine_tune_unfreezes_after_an_error_and_refuses_one_group():
    class Fails(Callback):
        def after_step(self, learn): raise RuntimeError('no')
    learn = learner()
    with pytest.raises(RuntimeError, match='no'): learn.fine_tune(1, cbs=Fails())
    assert all(p.requires_grad for p in learn.model.parameters())
    with pytest.raises(ValueError, match='only one'): learner(adapt=False).fine_tune(1)
    with pytest.raises(ValueError, match='div_body'): learn.fine_tune(1, div_body=0)
    before = state(learn.model)
    for lr in (1e-4, 1e-3), slice(1e-4, 1e-3), [1e-3]:
        with pytest.raises(TypeError, match='one number as lr'): learn.fine_tune(1, lr=lr)
    with pytest.raises(ValueError, match=r'two fits.*fit_one_cycle\(resume=\.\.\.\)'): learn.fine_tune(1, resume='here')
    assert not changed(learn.model, before)
    learn.fine_tune(1, freeze_epochs=0, resume=None)


def test_a_rate_from_an_array_or_tensor_fine_tunes_like_a_number():
    rates = 0.125, torch.tensor(0.125), np.array(0.125)
    ends = [state(learner().fine_tune(1, lr).model) for lr in rates]
    for other in ends[1:]: assert all(torch.equal(v, other[k]) for k, v in ends[0].items())


# ---- weights from elsewhere

def fake(which):
    "A state with the names and shapes that a library writes (counters of batches are not in the list)."
    gen = torch.Generator().manual_seed(0)
    tensors = {}
    for k, shape in KEYS[which].items():
        tensors[k] = torch.rand(shape, generator=gen)
        if k.endswith('running_var'): tensors[k.replace('running_var', 'num_batches_tracked')] = torch.tensor(7)
    return tensors


@pytest.mark.parametrize('which', KEYS)
def test_the_files_of_timm_and_fastai_load_to_the_last_tensor(which, tmp_path):
    theirs, arch = fake(which), getattr(xresnet, which.split()[1])
    torch.save({'model': theirs}, tmp_path/'w.pth')
    model = arch(**STEM)
    report = load_pretrained(model, tmp_path/'w.pth')
    assert set(report['loaded']) == set(model.state_dict()) and report['left_out'] == []
    keymap = find_keymap(theirs)
    for k, v in theirs.items(): assert torch.equal(model.state_dict()[keymap(k)], v), k
    write_tensors(tmp_path/'w.safetensors', theirs)
    again = arch(**STEM)
    load_pretrained(again, tmp_path/'w.safetensors')
    assert not changed(again, state(model))


@pytest.mark.parametrize('which', [k for k in KEYS if '18' in k])
def test_outputs_equal_those_of_the_library_where_it_is_installed(which):
    lib = pytest.importorskip(which.split()[0])
    if lib.__name__ == 'timm': theirs = lib.create_model('resnet18d')
    else: theirs = pytest.importorskip('fastai.vision.models.xresnet').xresnet18()
    ours = xresnet.xresnet18(**STEM)
    load_pretrained(ours, theirs.state_dict())
    for size in ((64, 64), (65, 47)):
        x = torch.randn(2, 3, *size)
        assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_body_of_another_architecture_lists_every_misfit_and_loads_nothing(tmp_path):
    theirs = fake('timm xresnet18')
    for model, words in ((xresnet.xresnet18(),
                          ['1.0.weight: (64, 32, 3, 3), in the file (32, 32, 3, 3) (conv1.3.weight)']),
                         (xresnet.xresnet34(**STEM), ['missing in the file:', '4.2.convs.0.0.weight']),
                         (XResNet.create(1, [1, 2, 2, 2], **STEM),
                          ['in the file, not in the model:', 'layer1.1.conv1.weight']),
                         (xresnet.xresnet18(c_out=10, **STEM),
                          ['10.weight: (10, 512), in the file (1000, 512) (fc.weight)'])):
        before = state(model)
        with pytest.raises(ValueError, match='nothing was loaded') as e: load_pretrained(model, theirs)
        assert all(w in str(e.value) for w in words) and not changed(model, before)
    assert str(e.value).count('in the file') == 2   # the linear layer's weight and bias, and nothing else


def test_a_tensor_too_many_or_too_few_is_an_error():
    theirs = fake('fastai xresnet18')
    del theirs['0.0.weight']
    theirs['ema.decay'] = torch.ones(1)
    with pytest.raises(ValueError, match='(?s)missing in the file:\n  0.0.weight\n.*not in the model:\n  ema.decay'):
        load_pretrained(xresnet.xresnet18(**STEM), theirs)
    with pytest.raises(ValueError, match='both become'):
        load_pretrained(tiny(), tiny().state_dict(), keymap=lambda k: 'x')


def test_without_the_head_only_the_body_is_loaded_and_the_rest_is_reported():
    theirs, model = fake('timm xresnet18'), xresnet.xresnet18(c_out=10, **STEM)
    before = state(model)
    assert load_pretrained(model, theirs, head=False)['left_out'] == ['10.bias', '10.weight']
    assert changed(model, before) == set(before) - {'10.weight', '10.bias'}


def test_a_saved_body_goes_into_the_body_of_another_net(tmp_path):
    source = tiny(c_out=4)
    write_tensors(tmp_path/'body.safetensors', cut_model(source).state_dict())
    target = tiny(c_out=9)
    load_pretrained(cut_model(target), tmp_path/'body.safetensors')
    assert changed(target, state(tiny(c_out=9)) | state(cut_model(source))) == {'8.weight'}


def test_tied_tensors_come_back_under_both_names(tmp_path):
    def tied():
        m = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        m[1].weight = m[0].weight
        return m
    a, b = tied(), tied()
    write_tensors(tmp_path/'t', a.state_dict())
    load_pretrained(b, tmp_path/'t')
    assert not changed(b, state(a)) and b[0].weight is b[1].weight


def test_ddp_prefixes_are_taken_away(tmp_path):
    torch.save({'state_dict': {f'module.{k}': v for k, v in tiny().state_dict().items()}, 'epoch': 3}, tmp_path/'w')
    assert list(read_weights(tmp_path/'w')) == list(tiny().state_dict())


class Hostile:
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.mkdir, (self.path,)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('write', [torch.save, partial(torch.save, _use_new_zipfile_serialization=False),
                                   lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_a_file_with_code_is_refused_and_the_code_does_not_run(tmp_path, write):
    write({'model': Hostile(str(tmp_path/'owned')), 'w': torch.ones(1)}, tmp_path/'w.pth')
    with pytest.raises(ValueError, match='run code') as e: read_weights(tmp_path/'w.pth')
    assert not (tmp_path/'owned').exists() and 'weights_only' not in str(e.value)


@pytest.mark.parametrize('content', [b'', b'12345678{', b'not a file of weights'])
def test_damaged_files_and_files_without_tensors_are_refused(tmp_path, content):
    (tmp_path/'w').write_bytes(content)
    with pytest.raises(ValueError): read_weights(tmp_path/'w')
    for o in ([torch.ones(1)], {}, {'a': 1}):
        torch.save(o, tmp_path/'w')
        with pytest.raises(ValueError, match='tensors by name'): read_weights(tmp_path/'w')


# ---- on a GPU

@cuda
def test_everything_works_on_cuda():
    learn = learner(adapt=False, device='cuda').fit(1)
    adapt_model(learn, loaders(), 3)
    assert all(p.is_cuda for p in learn.model.parameters())
    before = state(learn.model)
    learn.freeze().fit(1, lr=0.1, cbs=KeepNormStats())
    assert '1.2.weight' in changed(learn.model, before)
    learn.fine_tune(1, 0.1)
