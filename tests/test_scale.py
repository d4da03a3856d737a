"""Many processes and compiled models (chapter 10b). What only real processes can show is done by one start of this file
under torchrun, with two ranks; the tests then compare what the ranks have noted with a single process."""
import copy
import functools
import math
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler, TensorDataset

import minidl.schedule
from minidl.data import BatchLoader, EpochPairs, ItemList, LabeledData
from minidl.datasets import set_seed
from minidl.fp16 import AMP, MixedPrecision
from minidl.hooks import ActivationStats
from minidl.learner import (EMA, Callback, CancelFit, Checkpoint, CSVLogger, EarlyStopping, GradientAccumulation,
                            GradientClip, Journal, Learner, Perplexity, TerminateOnNaN, in_order, rmse)
from minidl.norm import BatchNorm
from minidl.scale import (BatchRange, Compile, Distributed, RankBatches, all_objects, all_sum, is_main, join_group,
                          launch, merge_averages, merge_metric, rank0_first, rank_and_size, share_train, share_valid,
                          sync_batch_norm)
from minidl.training import DataLoaders, EpochBatches, accuracy, get_dl, get_dls

N_IN, N_OUT = 6, 3


def samples(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(n, N_IN, generator=g), torch.randint(0, N_OUT, (n,), generator=g))

def net(kind='plain', seed=5):
    torch.manual_seed(seed)
    extra = dict(plain=[], bn=[nn.BatchNorm1d(8)], dropout=[nn.Dropout(0.3)])[kind]
    return nn.Sequential(nn.Linear(N_IN, 8), *extra, nn.ReLU(), nn.Linear(8, N_OUT))

def learner(bs, n=40, n_valid=23, kind='plain', seed=5, dist=None, cbs=(), valid_bs=4, loss_func=F.cross_entropy,
            model=None, dls=None, **kwargs):
    dls = dls or get_dls(samples(n), samples(n_valid, 1), bs=bs, valid_bs=valid_bs)
    opt = functools.partial(torch.optim.SGD, momentum=0.9)
    kwargs = dict(metrics=[accuracy], progress=False) | kwargs
    return Learner(model or net(kind, seed), dls, loss_func, opt, lr=0.1, device='cpu',
                   cbs=[Distributed(seed=7, **(dist or {})), *cbs], **kwargs)

def noted(learn):
    return dict(weights=[t.clone() for t in learn.model.state_dict().values()], losses=learn.recorder.losses,
                rows=[{k: v for k, v in r.items() if k != 'time'} for r in learn.recorder.values])


class Streamed(Callback):
    "Notes what only shows during a fit."
    order = 30
    def __init__(self): self.synced, self.wrapped, self.valid, self.masks = [], set(), [], []
    def after_pred(self, learn):
        if not learn.training or not learn.fitting: return
        ddp = learn.wrapped
        self.synced.append(getattr(ddp, 'require_backward_grad_sync', None))
        self.wrapped.add(type(ddp).__name__)
    def after_train(self, learn): self.valid.append(learn.validate())
    def after_batch(self, learn): assert list(learn.model.state_dict())[0] == '0.weight'

class FreezeSecond(Callback):
    def before_train(self, learn):
        if learn.epoch == 1: learn.model[0].requires_grad_(False)
    order = -60

class StopAt(Callback):
    order = 99
    def __init__(self, at): self.at = at
    def after_batch(self, learn):
        if learn.training and (learn.epoch, learn.iter) == self.at: raise CancelFit

class NaNAt(Callback):
    "One process's loss is not a number."
    order = -90
    def before_batch(self, learn):
        if learn.training and learn.iter == 4 and rank_and_size()[0] == rank_and_size()[1] - 1:
            learn.xb = learn.xb*math.nan

class Shift:
    "A batch transform that acts by chance."
    def __call__(self, xb, generator=None):
        return xb if generator is None else xb + torch.rand((), generator=generator)

class Mix(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()
    def forward(self, x): return self.net(x)


def cases(size, out):
    "All fits; `size` processes share batches of 8."
    out, bs, notes = Path(out), 8//size, {}
    rank, _ = rank_and_size()
    note = lambda name, learn: notes.update({name: noted(learn)})
    # weights of rank 0, although every rank begins with others; the last batch of 33 items has one item
    note('seeds', learner(bs, n=33, seed=5 + rank).fit(2))
    note('one item', learner(bs, n=1, n_valid=1).fit(2))
    note('drop_last', learner(bs).fit(1))
    seen = Streamed()
    note('accumulated', learner(bs//2, n=42, cbs=[GradientAccumulation(2), seen]).fit(2))
    notes['seen'] = dict(synced=seen.synced, wrapped=sorted(seen.wrapped), valid=seen.valid)
    note('clip, ema', learner(bs, n=33, cbs=[GradientClip(0.1), EMA(0.8)]).fit_one_cycle(2, 0.3))
    note('bn', learner(bs, kind='bn').fit(2))
    note('sync bn', learner(bs, kind='bn', dist=dict(sync_bn=True)).fit(2))
    # metrics: by function, streaming, in training, and where one rank has no validation batch
    note('metrics', learner(bs, n=33, metrics=[accuracy, Perplexity], train_metrics=True).fit(2))
    learn = learner(bs, n_valid=3)
    note('few', learn.fit(1))
    notes['few preds'] = learn.get_preds(with_loss=True)
    mse = Learner(nn.Linear(2, 1),
                  (get_dl(TensorDataset(torch.randn(9, 2, generator=torch.Generator().manual_seed(1)),
                                        torch.ones(9, 1)), bs),
                                    DataLoader(TensorDataset(torch.arange(10.).view(5, 2), torch.ones(5, 1)),
                                               batch_size=2)),
                  F.mse_loss, torch.optim.SGD, lr=1e-3, metrics=rmse, cbs=Distributed(), progress=False, device='cpu')
    with torch.no_grad(): mse.model.weight.fill_(0.5); mse.model.bias.zero_()
    note('rmse', mse.fit(1))
    # losses that leave targets out: of most items, and in sequences; some shares have nothing that counts
    x, y = samples(33)[:]
    rare = TensorDataset(x, torch.where(torch.arange(33) % 5 < 3, 0, y))
    note('ignored', learner(bs, dls=get_dls(rare, rare, bs=bs, valid_bs=4), loss_func=IGNORE_0).fit(2))
    padded = torch.where(torch.arange(33)[:, None] % 5 < torch.tensor([2, 4]), -100, y[:, None])        # (33, 2)
    assert (padded != -100).sum(1).unique().tolist() == [0, 1, 2]
    padded = TensorDataset(x, padded)
    tagger = nn.Sequential(net(), nn.Linear(N_OUT, 2*N_OUT), nn.Unflatten(1, (N_OUT, 2)))
    note('padded', learner(bs, dls=get_dls(padded, padded, bs=bs, valid_bs=4), model=tagger, metrics=()).fit(2))
    # labels that are missing: of all items of one rank's share, in every second batch
    i = torch.arange(33)
    missing = TensorDataset(x, torch.where((i//4 % 2 == 0) & (i % 2 == 0) & (i < 32), -100, y))
    for name, loss_func in dict(flat=F.cross_entropy, masked=masked_mean).items():
        dls = DataLoader(missing, bs), DataLoader(missing, 4)
        note(name, learner(bs, dls=dls, loss_func=loss_func).fit(2))
    # predictions and validation outside of a fit
    learn = learner(bs, n=33)
    notes['preds'] = [learn.get_preds(), learn.get_preds(learn.dls.train), learn.get_preds([(samples(5)[:][0],)])]
    notes['validate'] = [learn.validate(), learn.validate(get_dl(samples(33), 4, shuffle=True, drop_last=True))]
    notes['predict'] = learn.predict(torch.ones(N_IN))
    curve = learn.lr_find(n=20)
    notes['lr_find'] = dict(losses=curve.losses, after=noted_weights(learn))
    # decisions
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        stop = TerminateOnNaN(every=5)
        learner(bs, cbs=[NaNAt(), stop]).fit(2)
    notes['nan'] = stop.found
    early = learner(bs, cbs=[EarlyStopping(patience=1)])
    note('early', early.fit(12, lr=0.5))
    # files, and resuming
    def files(name):
        return [CSVLogger(out/name/'h.csv'), Journal(out/name/'j.jsonl'), Checkpoint(out/name/'c', every=3, keep=99)]
    learn = learner(bs, kind='dropout')
    note('whole', learn.fit_one_cycle(2, 0.2, cbs=files('whole')))
    notes['clean'] = [sorted(k for k in vars(c) if k.startswith(('before', 'after'))) for c in learn.cbs]
    notes['left'] = (learn.wrapped is None, learn.contexts == [], isinstance(learn.dls.train.sampler, RankBatches))
    for at, first in ((0, 3), (1, 3)):
        name = f'resumed{at}'
        learner(bs, kind='dropout').fit_one_cycle(2, 0.2, cbs=[*files(name), StopAt((at, first))])
        note(name, learner(bs, kind='dropout', seed=99).fit_one_cycle(resume=out/name/'c', cbs=files(name)))
    note('for one', learner(bs).fit(2, cbs=[Checkpoint(out/'plain', every=3, keep=99)]))
    # wrappers and contexts
    note('compiled', learner(bs, n=33, cbs=[Compile(backend='eager')]).fit(2))
    note('frozen', learner(bs, cbs=[FreezeSecond()]).fit(2))
    half = learner(bs, n=33)
    half.contexts.append(lambda: torch.autocast('cpu', torch.bfloat16))
    note('bf16', half.fit(2))
    note('amp bf16', learner(bs, n=33, cbs=[AMP(), GradientAccumulation(2), GradientClip(0.5)]).fit(2))
    note('amp fp16', learner(bs, n=33, cbs=[AMP(torch.float16, init_scale=64.), GradientClip(0.5)]).fit(2))
    note('mixed', learner(bs, n=33, cbs=[MixedPrecision(dynamic=False), GradientAccumulation(2), EMA(0.5)]).fit(2))
    # loaders
    train = BatchLoader(LabeledData(ItemList(list(range(20)), tfms=[drawn]), torch.arange(20) % N_OUT, train=True), bs,
                        shuffle=True,
                        batch_tfms=[Shift()], train=True)
    plain = share_train(train, rank, size)
    notes['items'] = [[(x - x[0, 0]*0).tolist() for x, _ in plain] for _ in range(2)]
    if size > 1:
        own = DataLoader(samples(30), batch_size=bs, sampler=DistributedSampler(range(30), shuffle=False))
        shared = Learner(net(), (own, get_dl(samples(9), 4)), F.cross_entropy, torch.optim.SGD, lr=0.1, progress=False,
                         device='cpu', cbs=Distributed())
        note('own', shared.fit(1))
        uneven = Learner(net(), (get_dl(samples(16 + 8*rank), bs), None), F.cross_entropy, torch.optim.SGD,
                         progress=False, device='cpu',
                         cbs=Distributed(share=False))
        try: uneven.fit(1)
        except ValueError as e: notes['uneven'] = str(e)
        repeated = DataLoader(samples(9), batch_size=2, sampler=DistributedSampler(range(9), shuffle=False))
        learn = learner(bs, dls=DataLoaders(get_dl(samples(33), bs), repeated))
        for name, f in dict(repeated=lambda: learn.fit(1), validated=learn.validate).items():
            try: f()
            except TypeError as e: notes[name] = str(e)
        notes['repeated left'] = (learn.wrapped is None, learn.contexts == [], learn.dls.valid is repeated,
                                  learn.recorder is None or not learn.recorder.losses)
        ours = nn.Sequential(net(), BatchNorm(N_OUT))
        try: learner(bs, model=ours, dist=dict(sync_bn=True)).fit(1)
        except ValueError as e: notes['our norm'] = str(e)
        torch.manual_seed(0)
        masks = []
        class Mask(Callback):
            def before_batch(self, learn): masks.append(torch.rand(2).tolist())
        learner(bs).fit(1, cbs=Mask())
        notes['masks'] = masks
    return notes

IGNORE_0 = functools.partial(F.cross_entropy, ignore_index=0)

def masked_mean(pred, targ, ignore_index=-100):
    "A mean by hand, which is 0/0 where nothing counts."
    keep = targ != ignore_index
    return (F.cross_entropy(pred, targ.where(keep, 0), reduction='none')*keep).sum()/keep.sum()

def three(size):
    "What three ranks do with twelve items a step, the last two of fourteen for two of them; also in float64."
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(14, 3, 4, 4, generator=g), torch.randint(0, N_OUT, (14,), generator=g)
    def fit(x, model):
        ds = TensorDataset(x, y[:len(x)])
        dls = get_dls(ds, ds, bs=12//size)
        return noted(learner(0, dls=dls, model=model.to(x.dtype), metrics=(), dist=dict(sync_bn=True)).fit(2))
    torch.manual_seed(1)
    conv = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    notes = dict(conv=fit(x, copy.deepcopy(conv)), double=fit(x.double(), copy.deepcopy(conv)))
    try: fit(x[:13], flat)                     # the last batch is one vector
    except ValueError as e: notes['one'] = str(e)
    return notes

def drawn(x, rng=None): return torch.tensor([float(x) + (0 if rng is None else rng.random())])

def noted_weights(learn): return [t.clone() for t in learn.model.state_dict().values()]


class Trouble(Callback):
    def __init__(self, kind): self.kind = kind
    def before_batch(self, learn):
        if learn.iter != 1 or rank_and_size()[0] != 1: return
        if self.kind == 'error': raise OSError('a broken file')
        if self.kind == 'interrupt': os.kill(os.getpid(), signal.SIGINT)
        if self.kind == 'stuck': time.sleep(300)

def main(what, out):
    if what == 'cases':
        notes = cases(join_group(timeout=40)[1], out)
        torch.save(notes, Path(out)/f'rank{rank_and_size()[0]}.pt')
    elif what == 'three': torch.save(three(join_group(timeout=40)[1]), Path(out)/f'rank{rank_and_size()[0]}.pt')
    else: learner(4, dist=dict(timeout=6 if what == 'stuck' else 40)).fit(1, cbs=Trouble(what))

if __name__ == '__main__':
    torch.set_num_threads(1)
    main(*sys.argv[1:])


# ---- one process

@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "Notes of one process, and of the two ranks."
    out = tmp_path_factory.mktemp('scale')
    for name in 'one', 'two': (out/name).mkdir()
    launch(__file__, 2, 'cases', out/'two', timeout=150)
    ranks = [torch.load(out/'two'/f'rank{r}.pt', weights_only=False) for r in range(2)]
    return cases(1, out/'one'), ranks, out

def close(a, b, tol=2e-5):
    if isinstance(a, dict): return a.keys() == b.keys() and all(close(a[k], b[k], tol) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(close(x, y, tol) for x, y in zip(a, b))
    if isinstance(a, Tensor): return torch.allclose(a.float(), b.float(), atol=tol, rtol=tol)
    if isinstance(a, float): return math.isclose(a, b, rel_tol=tol, abs_tol=tol) or math.isnan(a) and math.isnan(b)
    return a == b

SAME = ['seeds', 'one item', 'drop_last', 'accumulated', 'clip, ema', 'sync bn', 'metrics', 'few', 'rmse', 'early',
        'for one',
        'compiled', 'frozen', 'ignored', 'padded', 'flat', 'masked']

@pytest.mark.parametrize('name', SAME)
def test_two_processes_with_half_the_batch_do_what_one_does(runs, name):
    one, (a, b), _ = runs
    assert close(a[name], b[name], 0), 'the ranks differ from each other'
    assert close(a[name], one[name])

@pytest.mark.parametrize('name', ['bn', 'bf16', 'amp bf16', 'amp fp16', 'mixed', 'whole', 'own'])
def test_ranks_end_with_the_same_bits_where_one_process_would_end_elsewhere(runs, name):
    _, (a, b), _ = runs
    assert close(a[name], b[name], 0)

@pytest.mark.parametrize('name', ['bf16', 'amp bf16', 'amp fp16', 'mixed'])
def test_half_precision_is_near_one_process(runs, name):
    one, (a, _), _ = runs
    assert close(a[name]['weights'], one[name]['weights'], 0.03)

def test_a_batch_of_which_nothing_counts_has_no_loss_and_does_no_harm(runs):
    one, ranks, _ = runs
    for notes in one, *ranks:
        for name in 'ignored', 'padded':
            assert any(map(math.isnan, notes[name]['losses']))
            assert all(w.isfinite().all() for w in notes[name]['weights'])

def test_synchronized_batch_norm_leaves_out_the_stand_in_and_keeps_float64(tmp_path):
    launch(__file__, 3, 'three', tmp_path, timeout=120)
    one, ranks = three(1), [torch.load(tmp_path/f'rank{r}.pt', weights_only=False) for r in range(3)]
    for name in 'conv', 'double':
        for rank in ranks: assert close(rank[name], ranks[0][name], 0)
        assert close(ranks[0][name], one[name], 1e-10 if name == 'double' else 2e-5)
    assert ranks[0]['double']['weights'][0].dtype == torch.float64
    for notes in one, *ranks: assert 'more than one value' in notes['one'] or 'more than 1 value' in notes['one']

def test_a_validation_loader_that_repeats_items_is_refused_before_the_first_step(runs):
    for rank in runs[1]:
        for name in 'repeated', 'validated': assert 'Distributed shares it out' in rank[name]
        assert rank['repeated left'] == (True, True, True, True)

def test_a_batch_norm_that_is_not_synchronized_is_told(runs):
    for rank in runs[1]: assert 'minidl.norm.BatchNorm' in rank['our norm']

@pytest.mark.parametrize('name', ['preds', 'few preds', 'validate', 'predict', 'lr_find'])
def test_predictions_validation_and_the_rate_finder_are_those_of_one_process_on_every_rank(runs, name):
    one, ranks, _ = runs
    for rank in ranks: assert close(rank[name], one[name], 2e-4)

def test_gradients_are_exchanged_only_for_batches_with_a_step(runs):
    _, (a, _), _ = runs
    assert a['seen']['wrapped'] == ['DistributedDataParallel']
    # 42 items in batches of 4: the last, alone, makes a step
    assert a['seen']['synced'] == 2*([False, True]*5 + [True])

def test_validation_within_a_fit_is_that_of_one_process_and_disturbs_nothing(runs):
    one, ranks, _ = runs
    for rank in ranks: assert close(rank['seen']['valid'], one['seen']['valid'])

def test_all_ranks_stop_at_the_same_batch_when_one_has_a_nan(runs):
    _, (a, b), _ = runs
    assert tuple(a['nan']) == tuple(b['nan']) == (0, 4)

@pytest.mark.parametrize('at', [0, 1])
def test_a_resumed_run_ends_with_the_bits_of_the_uninterrupted_one_dropout_included(runs, at):
    _, ranks, _ = runs
    for rank in ranks: assert close(rank[f'resumed{at}'], rank['whole'], 0)

def test_only_rank_0_writes_and_everything_is_put_back(runs):
    _, ranks, out = runs
    for name in 'whole', 'resumed1':
        assert len((out/'two'/name/'h.csv').read_text().splitlines()) == 3
    assert len((out/'two/whole/j.jsonl').read_text().splitlines()) == 1
    for rank in ranks:
        assert not any(rank['clean'])
        assert rank['left'] == (True, True, False)

def test_one_process_resumes_what_two_have_begun(runs, tmp_path):
    one, _, out = runs
    learn = learner(8, seed=99)
    learn.fit(resume=out/'two/plain/e00001_b00000003.ckpt', cbs=[Checkpoint(tmp_path, every=3, keep=99)])
    assert close(noted(learn)['weights'], one['for one']['weights'])

def test_another_number_of_items_a_step_is_told_on_resuming(runs, tmp_path):
    _, _, out = runs
    with pytest.warns(UserWarning, match='steps of 8 items, now they have 4'):
        learn = learner(4).fit(resume=out/'two/plain/e00001_b00000000.ckpt',
                               cbs=[Checkpoint(tmp_path, every=3, keep=99)])
    assert len(learn.recorder.values) == 2

def test_items_keep_their_chance_and_batch_transforms_draw_differently_on_each_rank(runs):
    one, (a, b), _ = runs
    for epoch in range(2):
        values = [[v for batch in r['items'][epoch] for (v,) in batch] for r in (one, a, b)]
        assert len(values[0]) == 20 and len(values[1]) == len(values[2]) == 10
        assert len({round(v, 4) for v in values[0]}) == 20

def test_random_numbers_differ_between_ranks_and_rank_0_has_those_of_one_process(runs):
    _, (a, b), _ = runs
    torch.manual_seed(0)
    masks = []
    class Mask(Callback):
        def before_batch(self, learn): masks.append(torch.rand(2).tolist())
    learner(8).fit(1, cbs=Mask())
    n = 5                                       # training batches; then validation batches, of which a rank has a part
    assert a['masks'][0] != b['masks'][0] and not set(map(tuple, a['masks'][:n])) & set(map(tuple, b['masks'][:n]))

def test_unequal_numbers_of_batches_are_an_error_on_every_rank(runs):
    _, ranks, _ = runs
    for rank in ranks: assert 'have [4, 6] batches' in rank['uneven']


# ---- trouble

HANGS = """
import os, sys, time
with open(sys.argv[1], "a") as f: f.write(f"{os.getpid()} ")
print("here", flush=True)
time.sleep(200)
"""

@pytest.fixture(scope='module')
def trouble(tmp_path_factory):
    "What launch raises for each kind of trouble, and after how many seconds; two starts at a time."
    folder = tmp_path_factory.mktemp('trouble')
    (folder/'hangs.py').write_text(HANGS)
    def run(what):
        begin = time.time()
        try:
            if what == 'hang': launch(folder/'hangs.py', 2, folder/'pids', timeout=45)
            else: launch(__file__, 2, what, '', timeout=60)
        except RuntimeError as e: return str(e), time.time() - begin
        return 'ended well', 0
    kinds = 'error', 'interrupt', 'stuck', 'hang'
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(kinds, pool.map(run, kinds))) | {'pids': (folder/'pids').read_text()}

@pytest.mark.parametrize('what, said',
                         [('error', 'a broken file'), ('interrupt', 'KeyboardInterrupt'), ('stuck', 'RuntimeError')])
def test_trouble_in_one_process_ends_all_with_a_sentence(trouble, what, said):
    text, seconds = trouble[what]
    assert 'failed' in text.splitlines()[0] and seconds < 60
    assert said in text
    assert ('did not answer for 6 seconds' if what == 'stuck' else 'This was rank 1 of 2') in text

def test_launch_ends_a_script_that_hangs_and_its_processes(trouble):
    assert 'more than 45 seconds and was ended' in trouble['hang'][0]
    assert len(trouble['pids'].split()) == 2
    for pid in map(int, trouble['pids'].split()):
        with pytest.raises(ProcessLookupError): os.kill(pid, 0)

THREADS = """
import atexit, os, sys
def say(when): sys.stdout.write(f'{when} {len(os.listdir("/proc/self/task"))}\\n')   # threads of this process
sys.path.insert(0, sys.argv[1])
from test_scale import learner
atexit.register(say, 'threads at the end:')     # what is registered last acts first: this comes after the group's
learner(4).fit(1)
say('threads in the group:')
"""

@pytest.mark.skipif(sys.platform != 'linux', reason='threads are counted in /proc')
@pytest.mark.skipif([int(n) for n in re.findall(r'\d+', torch.__version__)[:2]] < [2, 13], reason='see minidl.scale')
def test_no_thread_of_the_group_outlives_the_group(tmp_path):
    (tmp_path/'threads.py').write_text(THREADS)
    said = launch(tmp_path/'threads.py', 2, Path(__file__).parent)
    counts = [[int(n) for n in re.findall(f'threads {when}: (\\d+)', said)] for when in ('in the group', 'at the end')]
    assert [len(o) for o in counts] == [2, 2], said
    for during, after in zip(*counts): assert after <= during - 3, said     # two of work, one of the network


# ---- shares

@pytest.mark.parametrize('n, bs, size, drop_last',
                         [(1, 1, 1, False), (1, 4, 3, False), (10, 2, 4, False), (33, 4, 2, False),
                                                    (64, 8, 2, False), (33, 4, 2, True), (100, 7, 5, True)])
def test_the_shares_are_the_batches_of_one_process_dealt_out(n, bs, size, drop_last):
    alone = EpochBatches(n, bs*size, True, drop_last, seed=3)
    shares = [RankBatches(EpochBatches(n, bs, True, drop_last, seed=3), r, size) for r in range(size)]
    for epoch in range(2):
        wholes, parts = list(alone), list(zip(*shares))
        assert len(wholes) == len(parts) == len(shares[0])
        for i, (whole, part) in enumerate(zip(wholes, parts)):
            sizes = [s.sizes(i) for s in shares]
            assert {a for a, _ in sizes} == {len(whole)} and sum(b for _, b in sizes) == len(whole)
            assert sorted(x for p, (_, k) in zip(part, sizes) for x in p[:k]) == sorted(whole)
            assert all(len(p) == max(k, 1) for p, (_, k) in zip(part, sizes))

def test_a_share_skips_and_knows_its_epoch():
    share = RankBatches(EpochBatches(50, 4, True, seed=1), 1, 2)
    share.set_epoch(3)
    whole = list(share)
    assert (share.epoch, share.skip) == (4, 0)
    share.set_epoch(3, skip=2)
    assert list(share) == whole[2:]

def test_pairs_keep_their_epoch():
    share = RankBatches(EpochPairs(10, 2, True, seed=1), 0, 2)
    share.set_epoch(5)
    assert all(epoch == 5 for batch in share for epoch, _ in batch)

def test_a_data_set_too_small_for_drop_last_is_refused():
    with pytest.raises(ValueError, match='bs=4 for each of 3 processes'):
        RankBatches(EpochBatches(10, 4, drop_last=True), 0, 3)

LOADERS = dict(
    whole=lambda: get_dl(samples(23), 4),
    items=lambda: DataLoader(samples(23), batch_sampler=EpochBatches(23, 4)),
    torch=lambda: DataLoader(samples(23), batch_size=4),
    batched=lambda: DataLoader(samples(23), batch_sampler=BatchSampler(SequentialSampler(range(23)), 4, False)),
    in_order=lambda: in_order(get_dl(samples(23), 4, shuffle=True, drop_last=True)),
    workers=lambda: get_dl(samples(23), 4, num_workers=1, persistent_workers=True))

@pytest.mark.parametrize('kind', LOADERS)
@pytest.mark.parametrize('size', [2, 9])
def test_validation_shares_together_are_the_loader(kind, size):
    if kind == 'workers' and size == 9: return
    whole = torch.cat([xb for xb, _ in LOADERS[kind]()])
    shares = [share_valid(LOADERS[kind](), r, size) for r in range(size)]
    assert torch.equal(torch.cat([xb for dl, counts in shares if counts for xb, _ in dl]), whole)
    assert all(len(list(dl)) == len(dl) == 1 for dl, counts in shares if not counts)

def test_what_cannot_be_shared_is_validated_by_all_and_refused_in_training():
    batches = [(torch.ones(2, N_IN), torch.zeros(2).long())]
    assert share_valid(batches, 0, 2) is None
    assert share_valid(DataLoader(samples(9), batch_size=2, shuffle=True), 0, 2) is None   # another order on each rank
    with pytest.raises(TypeError, match='share them'): share_train(batches, 0, 2)
    sampler = torch.utils.data.WeightedRandomSampler([1.]*9, 9)
    with pytest.raises(TypeError, match='share them'):
        share_train(DataLoader(samples(9), batch_size=2, sampler=sampler), 0, 2)

def test_a_loader_may_share_itself():
    class Own(list):
        def share(self, rank, n_ranks): return self[rank::n_ranks]
    assert share_train(Own(range(5)), 1, 2) == [1, 3]

def test_sharing_leaves_the_loader_alone():
    dl = get_dl(samples(23), 4, shuffle=True, num_workers=1, persistent_workers=True)
    before = [xb for xb, _ in dl]
    share = share_train(dl, 0, 2)
    assert len(list(share)) == 3 and share.sampler is not dl.sampler
    dl.sampler.set_epoch(0)
    assert all(torch.equal(a, b) for a, (b, _) in zip(before, dl))


# ---- alone

def test_alone_it_changes_nothing():
    a = noted(learner(8).fit(2))
    with_it = learner(8)
    with_it.remove_cb(with_it.cb(Distributed))
    assert close(a, noted(with_it.fit(2)), 0)
    assert rank_and_size() == (0, 1) and is_main() and all_objects(3) == [3]

def test_an_error_alone_has_no_note_of_ranks():
    class Bad(Callback):
        def before_batch(self, learn): raise OSError('x')
    with pytest.raises(OSError) as e: learner(8).fit(1, cbs=Bad())
    assert not any('rank' in n for n in e.value.__notes__)

def test_too_many_processes_for_the_gpus_are_refused(monkeypatch):
    for k, v in dict(WORLD_SIZE='4', RANK='3', LOCAL_RANK='3').items(): monkeypatch.setenv(k, v)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(ValueError, match='--nproc_per_node 2'): Distributed()

def test_a_metric_keeps_its_settings_and_adds_up_its_counts(monkeypatch):
    class Count:
        def __init__(self): self.beta, self.name, self.strict = 2., 'count', True; self.reset()
        def reset(self): self.n, self.total, self.kept = 0, torch.zeros(2), []
        def update(self, pred, targ): self.n += len(pred); self.total = self.total + 1; self.kept.append(self.n)
    ms = [Count(), Count()]
    for m, k in zip(ms, (3, 4)): m.update(range(k), None)
    states = []
    import minidl.scale as scale
    monkeypatch.setattr(scale, 'all_objects', lambda o: states.append(o) or [o])
    for m in copy.deepcopy(ms): merge_metric(m)
    monkeypatch.setattr(scale, 'all_objects', lambda o: states)
    merge_metric(ms[0])
    assert (ms[0].n, ms[0].beta, ms[0].strict, ms[0].kept) == (7, 2., True, [3, 4]) and ms[0].total.tolist() == [2, 2]

def test_a_metric_with_merge_state_is_given_the_others(monkeypatch):
    class Max:
        value = 1
        def merge_state(self, others): self.value = max([self.value, *(o.value for o in others)])
    other = Max(); other.value = 5
    m = Max()
    import minidl.scale as scale
    monkeypatch.setattr(scale, 'all_objects', lambda o: [o, other])
    merge_metric(m)
    assert m.value == 5

@pytest.mark.parametrize('momentum, affine', [(0.1, True), (None, True), (0.1, False)])
def test_synchronized_batch_norm_alone_is_batch_norm(momentum, affine):
    torch.manual_seed(0)
    bn = nn.BatchNorm2d(3, momentum=momentum, affine=affine)
    other, x = copy.deepcopy(bn), torch.randn(4, 3, 5, 5)
    for _ in range(2): torch.testing.assert_close(sync_batch_norm(other, x), bn(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(other.state_dict(), bn.state_dict())
    for m in bn, other: m.eval()
    torch.testing.assert_close(sync_batch_norm(other, x), bn(x), atol=1e-5, rtol=1e-4)


# ---- compiling

def compiled(cbs=(), backend='eager', n=33, **kwargs):
    torch.compiler.reset()
    return learner(8, n=n, cbs=[Compile(backend=backend), *cbs], **kwargs)

def test_a_compiled_fit_is_the_plain_one_and_keys_stay():
    seen = []
    class Look(Callback):
        def after_pred(self, learn): seen.append(type(learn.wrapped).__name__)
    learn = compiled([Look()], n=40, kind='bn')
    keys = list(learn.model.state_dict())
    learn.fit(2)
    assert set(seen) == {'_Compiled'} and learn.wrapped is None
    assert list(learn.model.state_dict()) == keys
    assert close(noted(learn), noted(learner(8, kind='bn').fit(2)))
    preds = learn.get_preds()[0]
    learn.remove_cb(learn.cb(Compile))
    assert close(preds, learn.get_preds()[0]) and learn.wrapped is None

def test_checkpoints_and_saved_files_of_a_compiled_model_are_those_of_the_plain_one(tmp_path):
    learn = compiled()
    learn.fit(1, cbs=Checkpoint(tmp_path))
    learn.save(tmp_path/'m.safetensors')
    plain = learner(8, n=33, seed=99)
    plain.load(tmp_path/'m.safetensors')
    assert close(noted_weights(plain), noted_weights(learn), 0)

def test_the_rate_finder_works_with_a_compiled_model():
    learn = compiled()
    assert close(learn.lr_find(n=20).losses, learner(8, n=33).lr_find(n=20).losses, 1e-4)
    assert learn.wrapped is None

def test_a_second_fit_compiles_nothing_again():
    n = []
    def backend(graph, inputs): n.append(1); return graph.forward
    learn = compiled(backend=backend, n_valid=8)
    learn.fit(1)
    first = len(n)
    learn.fit(1)
    assert len(n) == first

@pytest.mark.filterwarnings('ignore')
def test_hooks_that_come_with_a_later_fit_are_called_and_go_again():
    learn = compiled(n=32)
    learn.fit(1)
    calls = []
    class Listen(Callback):
        def before_fit(self, learn): self.hook = learn.model[1].register_forward_hook(lambda *args: calls.append(1))
        def after_fit(self, learn): self.hook.remove()
    learn.fit(1, cbs=Listen())
    assert len(calls) == 4 + 6                          # batches of training and of validation
    learn.fit(1)
    assert len(calls) == 4 + 6
    stats = ActivationStats()
    learn.fit(1, cbs=stats)
    assert {len(v) for v in stats.means.values()} == {4}

def test_where_nothing_can_be_compiled_a_sentence_says_so_and_the_fit_goes_on():
    def backend(graph, inputs): raise OSError('no C++ compiler found')
    learn = compiled(backend=backend)
    with pytest.warns(UserWarning, match='could not be compiled.*no C.. compiler found'): learn.fit(2)
    assert close(noted(learn), noted(learner(8, n=33).fit(2)), 0)

def test_a_system_without_torch_compile_is_told_once(monkeypatch):
    def compile(model, **options): raise RuntimeError('Dynamo is not supported on Python 3.20+')
    monkeypatch.setattr(torch, 'compile', compile)
    with pytest.warns(UserWarning, match='not supported on Python 3.20') as told: learn = compiled().fit(2)
    assert len(told) == 1
    assert close(noted(learn), noted(learner(8, n=33).fit(2)), 0)

def test_an_error_of_the_model_is_not_hidden_by_compiling():
    learn = compiled()
    learn.model[2] = nn.Linear(9, 3)
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match='shapes cannot be multiplied'):
        warnings.simplefilter('ignore')
        learn.fit(1)
    assert learn.wrapped is None

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_the_default_backend_compiles_on_a_gpu():
    learn = compiled(backend='inductor')
    learn.fit(2)
    assert len(learn.recorder.values) == 2
