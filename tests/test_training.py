"What chapter 04 exports: the order of batches, the loaders made of it, accuracy, parameter groups."
import copy, pickle, random

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset

from minidl.training import (DataLoaders, EpochBatches, accuracy, find_sampler, get_dl, get_dls, mix_seed,
                             no_decay_groups)


class Squares(Dataset):
    "Item i is (i, i*i), and remembers who was asked for."
    def __init__(self, n): self.n, self.asked = n, []
    def __len__(self): return self.n
    def __getitem__(self, i):
        self.asked.append(i)
        return torch.tensor(float(i)), torch.tensor(i*i)

class Doubled(TensorDataset):
    "A TensorDataset that does more per item, and only knows single items."
    def __getitem__(self, i):
        assert isinstance(i, int)
        return tuple(2*t[i] for t in self.tensors)

class Stream(IterableDataset):
    def __iter__(self): yield from range(10)

def sum_up(items): return sum(x for x, y in items)
def targets(loader): return [yb.tolist() for _, yb in loader]
def tensor_ds(n): return TensorDataset(torch.arange(n).float()[:, None], torch.arange(n))
def rng_states(): return torch.get_rng_state().tolist(), pickle.dumps((random.getstate(), np.random.get_state()))

# mix_seed

def test_mix_seed_is_the_same_in_every_version():
    "Whoever resumes with a newer minidl must get the same order."
    assert mix_seed(0, 0) == 411788715114236230
    assert mix_seed(42, 3, 7) == 450666493768442906

def test_mix_seed_tells_its_keys_apart():
    keys = [(s, e) for s in range(-5, 60) for e in range(60)] + [(12, 3), (1, 23), (123,), (1, 2, 3)]
    assert len({mix_seed(*k) for k in keys}) == len(set(keys))
    assert len({mix_seed(*k) & 0xffffffff for k in keys}) == len(set(keys))    # torch's CPU generator looks at 32 bits
    assert mix_seed(np.int64(3), torch.tensor(4)) == mix_seed(3, 4)

# EpochBatches

@settings(max_examples=60)
@given(n=st.integers(1, 200), bs=st.integers(1, 50), shuffle=st.booleans(), drop_last=st.booleans(),
       seed=st.integers(-2**40, 2**70), epoch=st.integers(0, 10**6))
def test_every_index_comes_exactly_once_in_batches_of_bs(n, bs, shuffle, drop_last, seed, epoch):
    if drop_last and n < bs: drop_last = False
    s = EpochBatches(n, bs, shuffle, drop_last, seed)
    s.set_epoch(epoch)
    batches = list(s)
    seen = sum(batches, [])
    assert len(batches) == len(s) and len(set(seen)) == len(seen)
    assert all(len(b) == bs for b in batches[:-1]) and 1 <= len(batches[-1]) <= bs
    if drop_last: assert len(seen) == n//bs*bs
    else: assert sorted(seen) == list(range(n))
    if not shuffle: assert seen == list(range(len(seen)))

@settings(max_examples=30)
@given(n=st.integers(1, 100), bs=st.integers(1, 30), epoch=st.integers(0, 50), data=st.data())
def test_skipping_leaves_out_the_first_batches_and_nothing_else(n, bs, epoch, data):
    s = EpochBatches(n, bs, shuffle=True, seed=1)
    skip = data.draw(st.integers(0, len(s)))
    s.set_epoch(epoch)
    whole = list(s)
    s.set_epoch(epoch, skip=skip)
    assert list(s) == whole[skip:]
    assert len(list(s)) == len(s)              # once only

def test_the_order_is_a_pure_function_of_seed_and_epoch():
    a = EpochBatches(50, 8, shuffle=True, seed=3)
    epochs = [list(a) for _ in range(4)]       # goes on by itself
    torch.manual_seed(99)
    torch.rand(7)
    b = EpochBatches(50, 8, shuffle=True, seed=3)
    for e in (2, 0, 3, 1):
        b.set_epoch(e)
        assert list(b) == epochs[e]
    orders = {tuple(EpochBatches(50, 8, shuffle=True, seed=s).order(e).tolist()) for s in range(10) for e in range(10)}
    assert len(orders) == 100

def test_index_tensors_hold_the_same_indices_as_lists():
    lists, tensors = (list(EpochBatches(23, 5, shuffle=True, seed=2, as_tensor=t)) for t in (False, True))
    assert [t.tolist() for t in tensors] == lists
    assert all(type(i) is int for b in lists for i in b) and all(t.dtype == torch.int64 for t in tensors)

def test_a_look_at_the_first_batch_is_no_epoch_but_an_abandoned_epoch_is_over():
    s = EpochBatches(10, 2, shuffle=True)
    iter(s)
    assert s.epoch == 0
    next(iter(s))
    assert s.epoch == 1

def test_a_sampler_pickles_with_its_position():
    s = EpochBatches(40, 4, shuffle=True, seed=5)
    s.set_epoch(2, skip=3)
    again = pickle.loads(pickle.dumps(s))
    assert list(again) == list(s) and again.epoch == s.epoch == 3
    assert list(copy.deepcopy(s)) == list(s)

@pytest.mark.parametrize('args, words', [
    (dict(n=0, bs=4), 'n=0'), (dict(n=-1, bs=4), 'n=-1'), (dict(n=4, bs=0), 'bs=0'), (dict(n=4, bs=-3), 'bs=-3'),
    (dict(n=4, bs=2.5), 'bs=2.5'), (dict(n=4, bs=8, drop_last=True), 'drop_last')])
def test_impossible_batches_are_refused_in_a_sentence(args, words):
    with pytest.raises(ValueError, match=words): EpochBatches(**args)

@pytest.mark.parametrize('skip', [-1, 4])
def test_skipping_more_than_there_is_is_refused(skip):
    with pytest.raises(ValueError, match='3 batches'): EpochBatches(10, 4).set_epoch(0, skip=skip)

# loaders

@pytest.mark.parametrize('ds', [Squares(37), tensor_ds(37)], ids=['items', 'tensors'])
def test_any_number_of_workers_gives_the_same_batches(ds):
    seen = []
    for num_workers in 0, 1, 2:
        dls = get_dls(ds, ds, bs=4, num_workers=num_workers, seed=3)
        seen.append([targets(dls.train), targets(dls.train), targets(dls.valid)])
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] != seen[0][1]

def test_it_works_under_spawn():
    for ds in Squares(12), tensor_ds(12):
        dls = get_dls(ds, bs=4, num_workers=1, multiprocessing_context='spawn')
        assert targets(dls.train) == targets(get_dls(ds, bs=4).train)

@pytest.mark.parametrize('num_workers', [0, 2])
@pytest.mark.parametrize('ds', [Squares(20), tensor_ds(20)], ids=['items', 'tensors'])
def test_the_global_generators_are_left_alone(ds, num_workers):
    torch.manual_seed(1)
    before = rng_states()
    dls = get_dls(ds, ds, bs=4, num_workers=num_workers)
    dls.one_batch()
    for _ in range(2): targets(dls.train), targets(dls.valid)
    assert rng_states() == before

@pytest.mark.parametrize('drop_last', [False, True])
def test_whole_batches_by_index_equal_item_by_item(drop_last):
    ds = TensorDataset(torch.randn(37, 3, 2), torch.arange(37))
    fast = get_dl(ds, 8, shuffle=True, drop_last=drop_last, seed=1)
    slow = DataLoader(ds, batch_sampler=EpochBatches(37, 8, shuffle=True, drop_last=drop_last, seed=1))
    assert fast.batch_size is None and len(fast) == len(slow) == (4 if drop_last else 5)
    for a, b in zip(fast, slow, strict=True):
        assert type(a) is type(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

def test_what_is_more_than_a_tensor_dataset_goes_item_by_item():
    assert [b[0].tolist() for b in get_dl(Doubled(torch.arange(4)), 2)] == [[0, 2], [4, 6]]
    assert [b.item() for b in get_dl(tensor_ds(4), 2, collate_fn=sum_up)] == [1, 5]

def test_validation_is_in_order_with_twice_the_batch_size():
    dls = get_dls(Squares(10), tensor_ds(10), bs=3)
    assert targets(dls.valid) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    dls = get_dls(Squares(10), tensor_ds(10), bs=3, valid_bs=7, drop_last=True)
    assert targets(dls.valid) == [[*range(7)], [7, 8, 9]]
    assert get_dls(Squares(10)).valid is None

@pytest.mark.parametrize('num_workers', [0, 2])
def test_resuming_inside_an_epoch_gives_the_rest_without_loading_what_was_seen(num_workers):
    whole = get_dls(Squares(30), bs=4, seed=7)
    whole.set_epoch(5)
    rest = targets(whole.train)[3:]
    ds = Squares(30)
    dls = get_dls(ds, bs=4, seed=7, num_workers=num_workers)
    assert dls.set_epoch(5, skip=3) is True
    assert targets(dls.train) == rest
    if num_workers == 0: assert len(ds.asked) == 30 - 3*4
    assert sum(map(len, targets(dls.train))) == 30

@pytest.mark.parametrize('kwargs', [{}, dict(num_workers=2), dict(num_workers=2, persistent_workers=True)])
def test_one_batch_does_not_use_up_the_epoch(kwargs):
    "Workers read ahead, and of a small data set they read everything."
    dls = get_dls(Squares(12), bs=4, seed=1, **kwargs)
    expected = targets(get_dls(Squares(12), bs=4, seed=1).train)
    assert dls.one_batch()[1].tolist() == dls.one_batch()[1].tolist() == expected[0]
    assert targets(dls.train) == expected
    dls.set_epoch(0, skip=1)
    assert dls.one_batch()[1].tolist() == expected[1]
    assert targets(dls.train) == expected[1:]

@pytest.mark.parametrize('make, words', [
    (lambda: get_dls(Squares(0), Squares(3), 2), 'training data set is empty'),
    (lambda: get_dls(Squares(3), Squares(0), 2), 'validation data set is empty'),
    (lambda: get_dls(Squares(3), bs=0), 'bs=0'),
    (lambda: get_dls(Squares(3), Squares(3), 2, valid_bs=-1), 'bs=-1'),
    (lambda: get_dls(Squares(3), bs=4, drop_last=True), 'drop_last=True leaves nothing of 3 items')])
def test_data_that_make_no_batch_are_refused_in_a_sentence(make, words):
    with pytest.raises(ValueError, match=words): make()

def test_a_data_set_smaller_than_a_batch_is_one_short_batch():
    assert [sorted(b) for b in targets(get_dls(Squares(3), bs=64).train)] == [[0, 1, 4]]

def test_a_stream_is_refused_and_told_what_to_do():
    with pytest.raises(TypeError, match='Stream.*loader of your own'): get_dls(Stream())

def test_memory_is_pinned_where_cuda_is_unless_said_otherwise(monkeypatch):
    assert get_dl(tensor_ds(4), 2).pin_memory is torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert get_dl(tensor_ds(4), 2).pin_memory and not get_dl(tensor_ds(4), 2, pin_memory=False).pin_memory

# DataLoaders

def test_anything_that_gives_batches_is_a_loader():
    batches = [(torch.zeros(2), torch.ones(2)), (torch.zeros(1), torch.ones(1))]
    dls = DataLoaders(batches, batches)
    assert dls.one_batch() is batches[0] and dls.set_epoch(4) is False
    foreign = DataLoaders(DataLoader(Squares(6), batch_size=2))
    assert foreign.one_batch()[1].tolist() == [0, 1] and foreign.set_epoch(1) is False

def test_a_sampler_that_knows_epochs_but_no_skip_says_so():
    sampler = DistributedSampler(Squares(6), num_replicas=2, rank=0)
    dls = DataLoaders(DataLoader(Squares(6), batch_size=2, sampler=sampler))
    assert find_sampler(dls.train) is sampler
    assert dls.set_epoch(3) is True and sampler.epoch == 3
    assert dls.set_epoch(4, skip=1) is False and sampler.epoch == 4
    assert len(dls.one_batch()) == 2

def test_a_loader_with_its_own_set_epoch_is_asked_first():
    class Own(list):
        def set_epoch(self, epoch, skip=0): self.at = epoch, skip
    dls = DataLoaders(Own([1]))
    assert dls.set_epoch(2, skip=5) and dls.train.at == (2, 5) and dls.one_batch() == 1

@pytest.mark.parametrize('how', [dict(batch_size=3), dict(sampler=[1, 2]), dict(batch_sampler=[[1, 2]])])
def test_a_sampler_of_ones_own_is_sent_to_ones_own_loader(how):
    with pytest.raises(TypeError, match=f'takes no {next(iter(how))}.*DataLoaders'): get_dls(tensor_ds(10), bs=2, **how)

def test_a_sampler_inside_a_batch_sampler_is_told_the_epoch():
    sampler = DistributedSampler(tensor_ds(10), 2, 0)
    dls = DataLoaders(DataLoader(tensor_ds(10), batch_sampler=BatchSampler(sampler, 2, False)))
    dls.set_epoch(3)
    assert sampler.epoch == 3

def test_a_tuple_of_tensors_is_refused_as_a_data_set():
    x, y = tensor_ds(10).tensors
    for pair in ((x, y), None), (tensor_ds(3), (x, y)):
        with pytest.raises(TypeError, match=r'tuple of 2 tensors.*TensorDataset\('): get_dls(*pair, bs=2)
    assert len(get_dls((1, 2, 3), bs=2).train) == 2   # a tuple of anything else is a data set

def test_loaders_show_how_many_batches_they_have():
    dls = get_dls(tensor_ds(10), bs=4)
    assert repr(dls) == 'DataLoaders(train: 3 batches, valid: none)'
    assert repr(DataLoaders(DataLoader(Stream()), [1, 2])) == 'DataLoaders(train: a stream, valid: 2 batches)'

def test_data_sets_and_empty_loaders_are_refused_in_a_sentence():
    with pytest.raises(TypeError, match='Squares.*get_dls'): DataLoaders(Squares(3))
    with pytest.raises(TypeError, match='TensorDataset.*get_dls'): DataLoaders([], tensor_ds(3))
    for train in [], None:
        with pytest.raises(ValueError, match='no batch'): DataLoaders(train).one_batch()

@pytest.mark.parametrize('ask',
                         [lambda d: d.show_batch(), lambda d: d.decode(1), lambda d: d.test_dl([1]), lambda d: d.vocab,
                                 lambda d: d.c_in, lambda d: d.c_out, lambda d: d.from_pipe('show_results')])
def test_without_a_pipe_a_sentence_says_what_is_missing(ask):
    with pytest.raises(AttributeError, match='without a pipe.*chapter 08'): ask(DataLoaders([1]))
    assert not hasattr(DataLoaders([1]), 'vocab')

def test_questions_about_batches_go_to_the_pipe():
    class Pipe:
        vocab, c_in, c_out = ['a', 'b'], 3, 2
        def show_batch(self, batch, **kwargs): return batch, kwargs
        def decode(self, batch): return batch*2
        def test_dl(self, items, bs=1): return items, bs
    dls = DataLoaders([7, 8], pipe=Pipe())
    assert (dls.vocab, dls.c_in, dls.c_out) == (['a', 'b'], 3, 2)
    assert dls.show_batch(n=3) == (7, {'n': 3}) and dls.decode(4) == 8 and dls.test_dl([1], bs=2) == ([1], 2)
    assert get_dls(Squares(3), pipe=dls.pipe).c_out == 2

# accuracy and parameter groups

def test_accuracy_is_the_mean_over_samples():
    pred = torch.tensor([[1., 2], [3, 0], [0, 1], [5, 4]])
    assert accuracy(pred, torch.tensor([1, 0, 0, 0])).item() == 0.75
    seq = torch.randn(3, 5, 7)
    targ = seq.argmax(-1)
    targ[0, :3] = (targ[0, :3] + 1) % 7
    acc = accuracy(seq, targ)
    torch.testing.assert_close(acc, torch.tensor(12/15))
    assert acc.ndim == 0 and acc.dtype == torch.float32
    assert accuracy(pred.bfloat16(), torch.tensor([1, 0, 1, 0])).item() == 1

@pytest.mark.parametrize('pred, targ', [((4, 2), (4, 1)), ((4, 2), (3,)), ((4, 3, 2), (4,)), ((4,), (4,))])
def test_accuracy_refuses_shapes_that_would_broadcast(pred, targ):
    with pytest.raises(ValueError, match='accuracy got pred of shape'):
        accuracy(torch.zeros(pred), torch.zeros(targ, dtype=torch.int64))

def test_groups_hold_every_parameter_once_and_spare_vectors():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Embedding(5, 4), shared, shared)
    model.scalar = nn.Parameter(torch.tensor(1.))
    decay, spared = no_decay_groups(model.parameters(), wd=0.1)
    assert (decay['weight_decay'], spared['weight_decay']) == (0.1, 0)
    assert len(decay['params']) == 3 and len(spared['params']) == 5
    assert {id(p) for p in model.parameters()} == {id(p) for p in decay['params'] + spared['params']}
    assert all(p.ndim > 1 for p in decay['params']) and all(p.ndim < 2 for p in spared['params'])
    opt = torch.optim.AdamW(no_decay_groups(nn.Linear(3, 3, bias=False).parameters(), 0.1))     # an empty group is fine
    opt.step()
