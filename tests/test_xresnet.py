"XResNet against fastai's and torch's numbers; its learner, interpretation and options; what is done about odd input."
import math
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset

from minidl.augment import CenterCrop, RandomResizedCrop, norm_imagenette
from minidl.data import ImageDataLoaders, RandomFlip, Resize
from minidl.datasets import get_data
from minidl.fp16 import AMP
from minidl.hooks import model_summary
from minidl.learner import Callback, Learner, load_learner
from minidl.mixup import LabelSmoothingCrossEntropy, MixUp
from minidl.training import DataLoaders, accuracy, get_dls
from minidl.xresnet import (ChannelsLast, Interpretation, ResBlock, XResNet, cnn_learner, conv_layer, get_batch,
                            round_channels, tta, xresnet18, xresnet34, xresnet50, xresnet101, xresnet152)

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
SIZES = [xresnet18, xresnet34, xresnet50, xresnet101, xresnet152]
NARROW = (32, 32, 64)     # fastai's stem
# parameters for fastai's stem, (c_in, c_out) = (3, 1000), (1, 10), (5, 7): read off fastai 2.8.12; timm 1.0.31's
# resnet18d ... resnet152d have the first column's counts too
COUNTS = {xresnet18: (11_708_744, 11_200_298, 11_199_911), xresnet34: (21_816_904, 21_308_458, 21_308_071),
          xresnet50: (25_576_264, 23_547_178, 23_542_183), xresnet101: (44_568_392, None, None),
          xresnet152: (60_212_040, None, None)}
tiny = partial(xresnet18, width=0.125)


def n_params(m): return sum(p.numel() for p in m.parameters())

def shake(model, seed=0):
    "Norm layers with uncommon weights and statistics, so that no path is silent."
    g = torch.Generator().manual_seed(seed)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t, lo, hi in ((m.weight, 0.2, 0.6), (m.bias, -0.1, 0.1), (m.running_mean, -0.1, 0.1),
                              (m.running_var, 0.5, 1.5)):
                t.data.uniform_(lo, hi, generator=g)
    return model

@pytest.fixture(scope='module')
def path(): return get_data('imagenette')

def pictures(path, size=16, **kwargs):
    how = dict(tfms=[RandomResizedCrop(size), RandomFlip()], valid_tfms=[CenterCrop(size)],
               batch_tfms=[norm_imagenette], bs=50)
    return ImageDataLoaders.from_folder(path, **how | kwargs)

@pytest.fixture(scope='module')
def dls(path): return pictures(path)

def toy_dls(n=24, c_in=3, size=8, k=3, **kwargs):
    g = torch.Generator().manual_seed(0)
    ds = TensorDataset(torch.randn(n, c_in, size, size, generator=g), torch.arange(n) % k)
    return get_dls(ds, ds, bs=8, **kwargs)

def quiet(arch, dls, *args, **kwargs): return cnn_learner(arch, dls, *args, progress=False, device='cpu', **kwargs)


# ---- the net

@pytest.mark.parametrize('arch', SIZES)
def test_parameter_counts_are_fastais_for_its_stem(arch):
    for (c_in, c_out), count in zip(((3, 1000), (1, 10), (5, 7)), COUNTS[arch]):
        with torch.device('meta'): net = arch(c_in, c_out, stem_szs=NARROW)
        if count is not None: assert n_params(net) == count
    with torch.device('meta'): assert n_params(arch()) == COUNTS[arch][0] + 9*32*64 - 9*32*32 + 9*64*64 - 9*32*64 + 2*32

def _to_our_keys(state):
    "fastai's names of weights -> ours; it has a dropout layer before the linear one."
    new = lambda k: k.replace('convpath', 'convs').replace('idpath', 'shortcut')
    return {'10.' + k[3:] if k.startswith('11.') else new(k): v for k, v in state.items()}

@pytest.mark.parametrize('name', ['xresnet18', 'xresnet34', 'xresnet50'])
@pytest.mark.parametrize('c_in, size', [(3, (64, 64)), (1, (65, 47)), (5, (33, 40))])
def test_outputs_gradients_and_statistics_are_fastais_with_its_weights(name, c_in, size):
    theirs = pytest.importorskip('fastai.vision.models.xresnet')
    torch.manual_seed(0)
    a, b = shake(getattr(theirs, name)(c_in=c_in, n_out=10)), globals()[name](c_in, 10, stem_szs=NARROW)
    state = _to_our_keys(a.state_dict())
    assert list(state) == list(b.state_dict())
    b.load_state_dict(state)
    x = torch.randn(2, c_in, *size)
    for train in False, True: assert_close(a.train(train)(x), b.train(train)(x), rtol=0, atol=0)
    for m in a, b: m(x).square().mean().backward()
    for p, q in zip(a.parameters(), b.parameters()): assert_close(p.grad, q.grad, rtol=0, atol=0)
    for p, q in zip(a.buffers(), b.buffers()): assert_close(p, q, rtol=0, atol=0)

@pytest.mark.parametrize('ours, theirs', [(xresnet18, 'resnet18d'), (xresnet50, 'resnet50d')])
def test_timms_d_nets_have_as_many_parameters_and_equal_outputs(ours, theirs):
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    a, b = shake(timm.create_model(theirs)), ours(stem_szs=NARROW)
    assert n_params(a) == n_params(b)
    # both list their tensors in the order of computation, but for the blocks, where timm has the shortcut last as we do
    of = lambda m: [t for k, t in m.state_dict().items()]
    assert [t.shape for t in of(a)] == [t.shape for t in of(b)]
    b.load_state_dict(dict(zip(b.state_dict(), of(a))))
    for size in (64, 64), (65, 47):
        x = torch.randn(2, 3, *size)
        assert_close(a.eval()(x), b.eval()(x), rtol=1e-4, atol=1e-4)

def test_multiply_adds_of_the_fifty_are_the_papers_4_3_billion():
    with torch.device('meta'):
        assert abs(model_summary(xresnet50(stem_szs=NARROW), torch.zeros(1, 3, 224, 224)).macs/1e9 - 4.33) < 0.01

def test_the_layout_is_stem_pool_stages_pool_flatten_linear():
    net = tiny(c_out=10)
    kinds = [type(m).__name__ for m in net]
    assert kinds == ['Sequential']*3 + ['MaxPool2d'] + ['Sequential']*4 + ['AdaptiveAvgPool2d', 'Flatten', 'Linear']
    body = net[:-3]
    assert body(torch.randn(2, 3, 32, 32)).shape == (2, 64, 1, 1) and not hasattr(body, 'spec')
    assert all(isinstance(b, ResBlock) for stage in net[4:8] for b in stage)

@pytest.mark.parametrize('arch', [xresnet18, xresnet50])
@pytest.mark.parametrize('size', [(1, 1), (2, 3), (5, 5), (33, 64), (63, 17)])
@pytest.mark.parametrize('c_in', [1, 3, 5])
def test_any_size_and_any_number_of_channels_goes_through(arch, size, c_in):
    net = arch(c_in, 4, width=0.125)
    assert net[0][0].out_channels % 8 == 0
    assert net.eval()(torch.randn(1, c_in, *size)).shape == (1, 4)
    if min(size) > 32: net.train()(torch.randn(1, c_in, *size)).sum().backward()   # more than one place is left

def test_a_batch_of_one_trains_where_more_than_one_pixel_is_left_at_the_end():
    net = tiny(c_out=4)
    net(torch.randn(1, 3, 64, 64)).sum().backward()
    with pytest.raises(ValueError, match='more than 1 value per channel'): net(torch.randn(1, 3, 16, 16))

def test_channels_are_multiples_of_8_and_8_at_least():
    assert [round_channels(n) for n in (0.1, 8, 11.9, 12, 32, 33, 63)] == [8, 8, 8, 16, 32, 32, 64]
    for width in 0.1, 0.3, 0.7, 1.3:
        net = xresnet18(width=width)
        assert all(m.out_channels % 8 == 0 for m in net.modules() if isinstance(m, nn.Conv2d))
    assert [xresnet18(c)[0][0].out_channels for c in (1, 3, 5)] == [16, 32, 48]

@pytest.mark.parametrize('kwargs', [dict(c_in=0), dict(c_out=0), dict(width=0), dict(width=-1)])
def test_numbers_under_one_are_refused_with_a_sentence(kwargs):
    with pytest.raises(ValueError, match='whole numbers from 1 on'): xresnet18(**kwargs)
    for layers in [], [2, 0, 2]:
        with pytest.raises(ValueError, match='whole numbers from 1 on'): XResNet.create(1, layers)

def test_other_depths_can_be_made():
    for expansion, layers in ((1, [1]), (4, [1, 1]), (1, [1]*6), (2, [1, 1, 1])):
        assert XResNet.create(expansion, layers, c_out=5).eval()(torch.randn(2, 3, 40, 40)).shape == (2, 5)
    net = XResNet.create(1, [1], act=partial(nn.LeakyReLU, 0.1))
    assert any(isinstance(m, nn.LeakyReLU) for m in net.modules())
    assert not any(type(m) is nn.ReLU for m in net.modules())

@pytest.mark.parametrize('expansion', [1, 4])
def test_a_new_block_passes_its_input_on_and_wakes_up_after_a_step(expansion):
    block, x = ResBlock(expansion, 64, 64//expansion), torch.rand(4, 64, 6, 6)
    assert torch.equal(block(x).detach(), x)
    opt = torch.optim.SGD(block.parameters(), lr=0.1)
    block(x).square().mean().backward()
    opt.step()
    assert not torch.equal(block(x).detach(), x)

def test_only_the_last_norm_of_each_block_starts_at_zero():
    for arch in xresnet18, xresnet50:
        net = arch(width=0.25)
        zero = {n for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d) and not m.weight.any()}
        last = {f'{n}.convs.{len(b.convs) - 1}.1' for n, b in net.named_modules() if isinstance(b, ResBlock)}
        assert zero == last
        assert all(m.bias is None for m in net.modules() if isinstance(m, nn.Conv2d))

def test_conv_layer_is_convolution_norm_activation():
    layer = conv_layer(3, 8, 5, 2)
    assert [type(m) for m in layer] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert layer(torch.randn(2, 3, 9, 8)).shape == (2, 8, 5, 4)
    assert len(conv_layer(3, 8, act=None)) == 2 and not conv_layer(3, 8, zero_bn=True)[1].weight.any()

def test_a_net_can_be_copied_and_pickled(tmp_path):
    import copy, pickle
    net, x = tiny(c_out=3).eval(), torch.randn(2, 3, 16, 16)
    for twin in copy.deepcopy(net), pickle.loads(pickle.dumps(net)): assert torch.equal(twin(x), net(x))


# ---- the learner

def test_the_pipe_says_how_many_channels_outputs_and_which_loss(path, dls):
    learn = quiet(tiny, dls)
    assert learn.model[0][0].in_channels == 3
    assert learn.model[-1].out_features == 10 and learn.loss_func is F.cross_entropy
    assert [n for n, _ in learn.metrics] == ['accuracy']
    gray = quiet(tiny, pictures(path, mode='L', batch_tfms=[]))
    assert gray.model[0][0].in_channels == 1
    gray.get_preds()

def test_what_neither_you_nor_a_pipe_knows_is_named():
    with pytest.raises(ValueError,
                       match=r'needs c_in, c_out, loss_func.*is not there.*Give c_in=\.\.\., c_out=\.\.\., loss_func'):
        cnn_learner(tiny, toy_dls())
    with pytest.raises(ValueError, match='needs c_out,'): cnn_learner(tiny, toy_dls(), F.cross_entropy, c_in=3)
    with pytest.raises(ValueError, match='needs c_in'): cnn_learner(tiny, None, F.cross_entropy, c_out=3)
    learn = quiet(tiny, toy_dls(), F.cross_entropy, c_in=3, c_out=3)
    learn.fit(1)
    assert 'accuracy' in learn.recorder.values[-1]

def test_a_net_in_the_place_of_the_architecture_is_refused_with_what_to_do(dls):
    with pytest.raises(TypeError, match=r'give the function.*not the XResNet.*Learner\(model, dls, loss_func\)'):
        cnn_learner(tiny(), dls)

def test_a_regression_gets_no_accuracy(path):
    regression = toy_dls()
    learn = quiet(tiny, regression, F.mse_loss, c_in=3, c_out=3)
    assert learn.metrics == []
    assert [n for n, _ in quiet(tiny, regression, F.cross_entropy, c_in=3, c_out=3, metrics=[]).metrics] == []

def test_smoothed_labels_count_as_classes(dls):
    assert [n for n, _ in quiet(tiny, dls, LabelSmoothingCrossEntropy(0.1)).metrics] == ['accuracy']

def test_export_and_load_give_the_same_predictions(tmp_path, path, dls):
    torch.manual_seed(0)
    learn = quiet(partial(xresnet18, width=0.125, stem_szs=[8, 8, 8]), dls, channels_last=True)
    learn.fit(1)
    learn.export(tmp_path/'net.safetensors')
    again = load_learner(tmp_path/'net.safetensors', device='cpu')
    item = dls.valid.dataset.x.items[3]
    assert again.model.spec['name'] == 'xresnet18' and again.predict(item).label == learn.predict(item).label
    assert_close(again.predict(item).probs, learn.predict(item).probs, rtol=1e-4, atol=1e-5)

def test_a_few_batches_can_be_learned_by_heart():
    torch.manual_seed(0)
    for arch in tiny, partial(xresnet50, width=0.125):
        learn = quiet(arch, toy_dls(size=32), F.cross_entropy, c_in=3, c_out=3, metrics=accuracy, lr=3e-3)
        learn.fit(15)
        assert learn.validate()['accuracy'] > 0.9

@pytest.mark.parametrize('cbs', [[], [MixUp], [partial(AMP, torch.bfloat16)], [MixUp, partial(AMP, torch.bfloat16)]])
def test_lr_find_one_cycle_mixup_smoothing_and_half_precision_go_together(cbs):
    cbs = [cb(0.4) if cb is MixUp else cb() for cb in cbs]
    learn = quiet(tiny, toy_dls(), LabelSmoothingCrossEntropy(0.1), c_in=3, c_out=3, cbs=cbs, channels_last=True)
    learn.lr_find(n=4)
    learn.fit_one_cycle(2, 1e-2)
    assert math.isfinite(learn.validate()['loss']) and all(p.dtype == torch.float32 for p in learn.model.parameters())


# ---- a batch as the model sees it

class Note(Callback):
    "Keeps what the model is given, and counts."
    order = 39
    def __init__(self): self.seen = []
    def before_batch(self, learn): self.seen.append(learn.xb)

def test_get_batch_gives_what_the_model_gets_and_leaves_no_trace(dls):
    torch.manual_seed(0)
    note = Note()
    learn = quiet(tiny, dls, cbs=[MixUp(0.4), note])
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    state, kept, loss_func = torch.get_rng_state(), list(learn.cbs), learn.loss_func
    xb, yb = get_batch(dls.train, learn)
    assert xb.shape == (50, 3, 16, 16) and yb.shape == (50,)
    assert not torch.equal(xb, dls.one_batch()[0])                                   # it was mixed
    assert all(torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and learn.opt is None and learn.loss_func is loss_func
    assert len(learn.cbs) == len(kept) and all(a is b for a, b in zip(learn.cbs, kept)) and not note.seen
    again, _ = get_batch(dls.train, learn)
    assert torch.equal(xb, again)
    learn.fit(1)
    assert torch.equal(note.seen[0], xb)     # the fit begins with this very batch

def test_get_batch_of_the_validation_loader_is_not_mixed(dls):
    learn = quiet(tiny, dls, cbs=[MixUp(0.4)])
    xb, yb = get_batch(dls.valid, learn)
    first = next(iter(dls.valid))
    assert torch.equal(xb, first[0]) and torch.equal(yb, first[1])
    assert not learn.fitting and learn.model.training

def test_get_batch_works_without_a_pipe_and_says_so_when_there_is_no_batch():
    learn = quiet(tiny, toy_dls(), F.cross_entropy, c_in=3, c_out=3)
    assert get_batch(learn.dls.train, learn)[0].shape == (8, 3, 8, 8)
    with pytest.raises(ValueError, match='no batches'): get_batch([], learn)


# ---- interpretation

def interpreted(targs, preds, k=3, **kwargs):
    targs, preds = torch.tensor(targs), torch.tensor(preds)
    probs = F.one_hot(preds, k).float()*0.8 + 0.2/k
    return Interpretation(probs, targs, F.nll_loss(probs.log(), targs, reduction='none'), **kwargs)

def test_confusion_matrix_class_accuracy_and_most_confused_on_a_small_case():
    interp = interpreted([0, 0, 0, 1, 1], [0, 1, 1, 1, 0], vocab=['a', 'b', 'c'])
    assert interp.confusion_matrix().tolist() == [[1, 2, 0], [1, 1, 0], [0, 0, 0]]
    found = interp.class_accuracy()
    assert found['a'] == pytest.approx(1/3) and found['b'] == 0.5 and math.isnan(found['c'])
    assert interp.most_confused() == [('a', 'b', 2), ('b', 'a', 1)] and interp.most_confused(min_n=2) == [('a', 'b', 2)]
    assert interp.top_losses(99)[0].shape == (5,) and set(interp.top_losses(3)[1].tolist()) == {1, 2, 4}
    interp.plot_confusion_matrix()
    interp.plot_class_accuracy()
    with pytest.raises(ValueError, match='no data set'): interp.plot_top_losses()

def test_classes_without_names_are_numbered():
    assert interpreted([0], [1]).vocab == ['0', '1', '2'] == interpreted([0], [1], vocab=['too few']).vocab

def test_other_targets_than_one_class_are_refused():
    with pytest.raises(ValueError, match='one class an item'): Interpretation(torch.rand(4, 3), torch.rand(4, 3), None)
    with pytest.raises(ValueError, match='one class an item'): Interpretation(torch.rand(4, 3), torch.rand(4), None)

def test_from_learner_agrees_with_validate_and_keeps_the_data_sets_order(dls):
    torch.manual_seed(0)
    learn = quiet(tiny, dls)
    learn.fit(1)
    interp = Interpretation.from_learner(learn)
    share = (interp.preds == interp.targs).float().mean().item()
    assert share == pytest.approx(learn.validate()['accuracy'], abs=1e-6)
    assert interp.losses.mean().item() == pytest.approx(learn.validate()['loss'], rel=1e-4)
    assert interp.vocab == dls.vocab and torch.equal(interp.targs, dls.valid.dataset.y)
    axs = interp.plot_top_losses(3)
    worst = interp.top_losses(1)[1].item()
    assert dls.vocab[interp.targs[worst]] in axs[0, 0].get_title()

def test_from_learner_takes_the_training_loader_in_order_and_without_chance(dls):
    learn = quiet(tiny, dls)
    a, b = (Interpretation.from_learner(learn, dls.train) for _ in range(2))
    assert torch.equal(a.targs, dls.train.dataset.y) and torch.equal(a.probs, b.probs)
    assert a.dl.dataset.train is False

def test_interpretation_without_a_pipe_draws_tensors():
    learn = quiet(tiny, toy_dls(), F.cross_entropy, c_in=3, c_out=3)
    interp = Interpretation.from_learner(learn)
    interp.plot_top_losses(3)
    assert interp.vocab == ['0', '1', '2']

def test_pictures_are_not_fetched_where_the_order_of_the_loader_is_not_known():
    ds = toy_dls().valid.dataset
    for loader in DataLoader(ds, 8, shuffle=True), DataLoader(Subset(ds, range(5, 15)), 8):
        interp = Interpretation.from_learner(quiet(tiny, (loader, loader), F.cross_entropy, c_in=3, c_out=3))
        assert all(interp.dl.dataset[i][1] == t for i, t in enumerate(interp.targs))
        interp.plot_top_losses(2)
    some = DataLoader(ds, 8, sampler=SubsetRandomSampler(range(5, 15)))
    interp = Interpretation.from_learner(quiet(tiny, (some, some), F.cross_entropy, c_in=3, c_out=3))
    assert len(interp.targs) == len(interp.top_losses(99)[0]) == 10
    with pytest.raises(ValueError, match=r'its order is not known: .*DataLoader\(Subset\(ds, indices\), bs\)'):
        interp.plot_top_losses()

def test_names_of_classes_are_no_formulas_and_long_ones_are_wrapped():
    vocab = ['$\\frac$ off', 'soft_coated_wheaten_terrier', 'c']
    interp = interpreted([0, 0, 1, 1, 2], [0, 1, 1, 1, 0], vocab=vocab,
                         dl=DataLoader(TensorDataset(torch.rand(5, 3, 8, 8), torch.zeros(5))))
    for draw in interp.plot_confusion_matrix, interp.plot_class_accuracy: draw().figure.canvas.draw()
    axs = interp.plot_top_losses(5, ncols=2, size=1.2)
    axs[0, 0].figure.canvas.draw()
    titles = [ax.get_title() for ax in axs.flat]
    assert any('$\\frac$ off, p' in t for t in titles) and max(len(o) for t in titles for o in t.split('\n')) <= 18
    boxes = [ax.title.get_window_extent() for ax in axs.flat if ax.get_title()]
    assert not any(a.overlaps(ax.get_window_extent()) for a in boxes for ax in axs.flat)

def test_items_without_targets_cannot_be_interpreted(dls):
    learn = quiet(tiny, dls)
    with pytest.raises(ValueError, match='no targets'):
        Interpretation.from_learner(learn, dls.test_dl(dls.valid.dataset.x.items[:3]))


# ---- options

def test_channels_last_changes_strides_and_nothing_else():
    torch.manual_seed(0)
    learn = quiet(tiny, toy_dls(size=32), F.cross_entropy, c_in=3, c_out=3)
    plain, _ = learn.get_preds()
    xb, _ = get_batch(learn.dls.valid, learn)
    assert xb.is_contiguous()
    learn.add_cb(ChannelsLast())
    turned, _ = learn.get_preds()
    assert_close(plain, turned, rtol=1e-4, atol=1e-5)
    xb, _ = get_batch(learn.dls.valid, learn)
    assert xb.is_contiguous(memory_format=torch.channels_last) and not xb.is_contiguous()
    assert learn.model[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    learn.fit(1)

def test_channels_last_leaves_other_inputs_alone():
    ds = TensorDataset(torch.randn(8, 5), torch.zeros(8, dtype=torch.long))
    Learner(nn.Linear(5, 2), get_dls(ds, ds, bs=4), F.cross_entropy, cbs=[ChannelsLast()], progress=False,
            device='cpu').fit(1)

def test_a_learner_goes_on_with_larger_pictures(path, dls):
    learn = quiet(tiny, dls)
    learn.fit(1)
    learn.dls = pictures(path, size=24)
    learn.fit(1)
    assert get_batch(learn.dls.train, learn)[0].shape[-2:] == (24, 24)

def test_tta_is_the_weighted_mean_of_views_and_repeats_itself(dls):
    torch.manual_seed(0)
    learn, soft = quiet(tiny, dls), partial(torch.softmax, dim=-1)
    with torch.no_grad(): learn.model[-1].weight.mul_(20)      # so that predictions differ
    some = dls.test_dl(dls.valid.dataset.x.items[::10], bs=16)
    plain, _ = learn.get_preds(some, act=soft)
    state = torch.get_rng_state()
    probs, _ = learn.tta(some, n=2)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(learn.tta(some, n=2)[0], probs)
    assert_close(probs.sum(1), torch.ones(len(probs)))
    assert_close(learn.tta(some, n=2, weight=1.)[0], plain)
    views, first = learn.tta(some, n=2, weight=0.)[0], learn.tta(some, n=1, weight=0.)[0]
    assert_close(probs, 0.75*views + 0.25*plain)
    for other in plain, first, learn.tta(some, n=2, weight=0., seed=1)[0]: assert not torch.allclose(views, other)
    assert torch.equal(learn.get_preds(some, act=soft)[0], plain) and some.dataset.train is False

def test_tta_gives_the_targets_of_the_validation_set_in_order(dls):
    learn = quiet(tiny, dls)
    probs, targs = learn.tta(n=1)
    assert torch.equal(targs, dls.valid.dataset.y) and len(probs) == len(targs)

def test_tta_averages_logits_if_asked(dls):
    learn = quiet(tiny, dls)
    some = dls.test_dl(dls.valid.dataset.x.items[:10])
    assert_close(learn.tta(some, n=1, weight=1., act=lambda pred: pred)[0], learn.get_preds(some)[0])

@pytest.mark.parametrize('how, act', [
    (dict(label_col='one'), partial(torch.softmax, dim=-1)), (dict(label_col='several', label_sep=' '), torch.sigmoid),
    (dict(label_col='number'), lambda pred: pred), (dict(label_col=['number', 'other']), lambda pred: pred)],
    ids=['one class', 'several classes', 'a number', 'two numbers'])
def test_tta_averages_what_the_task_predicts(how, act, path):
    files = sorted(path.glob('train/*/*'))[:24]
    df = dict(name=[str(f) for f in files], one=['ab'[i % 2] for i in range(24)], number=[i/4 for i in range(24)],
              several=['a b'[:1 + i % 3] for i in range(24)], other=[1.5]*24)
    torch.manual_seed(0)
    learn = quiet(tiny, ImageDataLoaders.from_df(df, tfms=[Resize(16), RandomFlip()], bs=8, **how))
    plain = learn.get_preds(act=act)[0]
    assert_close(learn.tta(n=1, weight=1.)[0], plain)
    assert_close(learn.tta(n=1, weight=0.)[0], plain, rtol=0.5, atol=0.2)
    assert_close(learn.predict(learn.dls.valid.dataset.x.items[0]).probs, plain[0])

def test_tta_collates_its_views_as_the_loader_does(path):
    def smaller(samples):
        xs, ys = zip(*samples)
        return torch.stack([x[:, :16, :16] for x in xs]), torch.stack(ys)
    dls = pictures(path, size=20, collate_fn=smaller)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3*16*16, 10))
    learn = Learner(net, dls, F.cross_entropy, progress=False, device='cpu')
    probs, targs = learn.tta(n=1)
    assert torch.equal(targs, dls.valid.dataset.y) and probs.shape == (len(targs), 10)

def test_tta_is_the_same_for_any_number_of_workers(path):
    torch.manual_seed(0)
    learn = quiet(tiny, pictures(path, num_workers=1))
    some = learn.dls.test_dl(learn.dls.valid.dataset.x.items[:20], bs=8, num_workers=1)
    alone = learn.dls.test_dl(learn.dls.valid.dataset.x.items[:20], bs=8)
    a, targs = learn.tta(some, n=2)
    assert targs is None and torch.equal(a, tta(learn, alone, n=2)[0])

def test_tta_says_what_it_lacks(path, dls):
    learn = quiet(tiny, toy_dls(), F.cross_entropy, c_in=3, c_out=3)
    with pytest.raises(ValueError, match='data block'): learn.tta()
    still = quiet(tiny, pictures(path, tfms=[Resize(16)], valid_tfms=None))
    with pytest.raises(ValueError, match='acts by chance'): still.tta()
    learn = quiet(tiny, dls)
    for wrong in dict(n=0), dict(weight=1.5):
        with pytest.raises(ValueError, match='n from 1 on'): learn.tta(**wrong)


# ---- CUDA

@cuda
def test_on_a_gpu_in_half_precision_and_channels_last(path):
    learn = cnn_learner(tiny, pictures(path, size=32), LabelSmoothingCrossEntropy(0.1), progress=False,
                        cbs=[MixUp(0.4), AMP(torch.bfloat16)], channels_last=True)
    xb, _ = get_batch(learn.dls.train, learn)
    assert xb.is_cuda and xb.is_contiguous(memory_format=torch.channels_last)
    learn.fit_one_cycle(1, 1e-2)
    assert math.isfinite(learn.recorder.values[-1]['valid_loss'])
    probs, targs = learn.tta(n=1)
    assert not probs.is_cuda and Interpretation.from_learner(learn).confusion_matrix().sum() == len(targs)
