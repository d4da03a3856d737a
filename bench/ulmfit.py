"""ULMFiT on real data, as one command (not part of `make bench`: it takes about an hour for two seeds on two CPU cores):

    MINIDL_DATA=../shared/data .venv/bin/python bench/ulmfit.py [--seeds 2] [--one-lm] [--size cpu|full|tiny] \\
        [--out FOLDER]

Pretrains on the wikitext files, fine-tunes on all imdb texts (a random tenth held out; labels are not looked at), trains
the classifier on the labeled ones, and the same net without pretraining: for as many epochs, for twice as many, and with
the smaller dropout that suits it better. Prints perplexities, minutes of each stage, accuracy on the test reviews for each
seed, and TF-IDF with logistic regression beside (that one needs scikit-learn). What a stage made is kept in FOLDER: run
the command again, and it goes on after the last stage that was done.
"""
import argparse
import ctypes
import hashlib
import json
import re
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from minidl.data import SplitData, label_by_func, parent_labeler
from minidl.datasets import get_data, is_sample, set_seed
from minidl.fp16 import AMP
from minidl.schedule import fit_one_cycle
from minidl.text import Numericalizer, TextList, Tokenizer, label_for_lm
from minidl.ulmfit import lm_learner, save_encoder, text_classifier_learner, unfreeze_gradually

RECIPES = dict(
    # only to see that everything runs
    tiny=dict(sizes=dict(emb_sz=32, n_hid=32, n_layers=1), max_vocab=1000, lm_drop=0.1,
              wiki=dict(bs=64, bptt=70, epochs=1, lr=1e-2), reviews=dict(bs=64, bptt=70, epochs=1, lr=(5e-3, 1e-2)),
              bs=64, max_len=140, drop=0.3, stages=[(1, 1e-2), (1, 1e-2)], div=1.3, scratch_drop=0.1),
    cpu=dict(sizes=dict(emb_sz=200, n_hid=400, n_layers=2), max_vocab=10000, lm_drop=0.2,
             wiki=dict(bs=32, bptt=70, epochs=2, lr=5e-3), reviews=dict(bs=64, bptt=70, epochs=3, lr=(3e-3, 5e-3)),
             bs=32, max_len=420, drop=0.8, stages=[(1, 1e-2), (4, 4e-3)], div=1.3, scratch_drop=0.3),
    full=dict(sizes=dict(emb_sz=400, n_hid=1152, n_layers=3), max_vocab=60000, lm_drop=1.,
              wiki=dict(bs=64, bptt=70, epochs=20, lr=3e-3), reviews=dict(bs=64, bptt=70, epochs=12, lr=(1e-3, 4e-3)),
              bs=64, max_len=1400, drop=1., stages=[(1, 2e-2), (1, 1e-2), (1, 5e-3), (6, 2e-3)], div=2.6,
              scratch_drop=0.5))


def big_blocks_by_mmap():
    """glibc before 2.38 does not find freed aligned blocks again: batches of logits just under its limit of 32 MB, above
    which it asks the system for memory and gives it back, take 30 MB more in each step. From 4 MB on it shall ask."""
    try: ctypes.CDLL(None).mallopt(-3, 2**22)     # M_MMAP_THRESHOLD
    except (AttributeError, OSError, TypeError): pass     # another C library


class Stages:
    "Results of stages by name, kept in a file, so that a stage that was done is not done again."
    def __init__(self, folder):
        self.file = folder/'stages.json'
        self.done = json.loads(self.file.read_text()) if self.file.exists() else {}

    def __call__(self, name, work):
        if name not in self.done:
            began, cpu = time.perf_counter(), time.process_time()
            result = work()
            self.done[name] = dict(result=result, minutes=(time.perf_counter() - began)/60,
                                   cpu_minutes=(time.process_time() - cpu)/60)
            self.file.write_text(json.dumps(self.done, indent=1))
        stage = self.done[name]
        print(f"{name:36} {stage['minutes']:6.1f} minutes ({stage['cpu_minutes']:.1f} of a core)   {stage['result']}",
              flush=True)
        return stage


def articles(path):
    "All articles of the wikitext files, the last twentieth held out."
    files = [(path/f'{f}.txt').read_text(encoding='utf-8') for f in ('train', 'test')]
    texts = [a for text in files for a in re.split(r'\n(?= = [^=])', text) if a.strip()]
    cut = -max(1, len(texts)//20)
    return SplitData(TextList(texts[:cut]), TextList(texts[cut:]))


def train_lm(dls, recipe, how, seed, file, pretrained=None):
    set_seed(seed)
    config = None if pretrained else recipe['sizes']
    learn = lm_learner(dls, config, recipe['lm_drop'], pretrained, cbs=[AMP()], progress=False)
    fit_one_cycle(learn, how['epochs'], how['lr'])
    save_encoder(file, learn)
    return 'perplexity ' + ' '.join(f"{row['perplexity']:.1f}" for row in learn.recorder.values)


def train_classifier(sd, proc_x, recipe, seed, encoder=None, times=1, drop=None):
    "Accuracies after each stage; from scratch (`encoder=None`) in one stage, of `times` as many epochs."
    dls = label_by_func(sd, parent_labeler, proc_x=proc_x).to_dls(recipe['bs'], seed=seed)
    set_seed(seed)
    config = (None if encoder else recipe['sizes']) or {}
    learn = text_classifier_learner(dls, config | dict(max_len=recipe['max_len']), encoder, drop or recipe['drop'],
                                    cbs=[AMP()], progress=False)
    if encoder: rows = unfreeze_gradually(learn, recipe['stages'], recipe['div'])
    else:
        fit_one_cycle(learn, times*sum(n for n, _ in recipe['stages']), recipe['stages'][-1][1])
        rows = [learn.recorder.values[-1]]
    return [round(float(row['accuracy']), 4) for row in rows]


def tfidf(sd):
    "Accuracy of logistic regression on TF-IDF, words and pairs of words."
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    texts, labels = zip(*[([f.read_text(encoding='utf-8') for f in il.items], [parent_labeler(f) for f in il.items])
                          for il in (sd.train, sd.valid)])
    scores = []
    for n_gram in 1, 2:
        rows = TfidfVectorizer(ngram_range=(1, n_gram), sublinear_tf=True, min_df=2)
        model = LogisticRegression(C=10, max_iter=1000).fit(rows.fit_transform(texts[0]), labels[0])
        scores.append(round(model.score(rows.transform(texts[1]), labels[1]), 4))
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=RECIPES, default='full' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--seeds', type=int, default=2, help='how many times everything is done')
    parser.add_argument('--one-lm', action='store_true', help='all seeds share the language model of the first')
    parser.add_argument('--workers', type=int, default=2, help='processes of the tokenizer')
    parser.add_argument('--out', type=Path, default=Path(tempfile.gettempdir())/'minidl-ulmfit')
    args = parser.parse_args()
    big_blocks_by_mmap()
    recipe, wiki_path, imdb_path = RECIPES[args.size], get_data('wikitext'), get_data('imdb')
    key = hashlib.sha256(json.dumps([recipe, str(wiki_path), str(imdb_path)]).encode()).hexdigest()[:8]
    folder = args.out/f'{args.size}-{key}'
    folder.mkdir(parents=True, exist_ok=True)
    stage = Stages(folder)
    print(f'{torch.get_num_threads()} threads, {recipe}\n{folder}\n')

    tokenizer, began = Tokenizer(n_workers=args.workers), time.perf_counter()
    wiki_lists = label_for_lm(articles(wiki_path), [tokenizer, Numericalizer(max_vocab=recipe['max_vocab'])])
    numericalizer = Numericalizer(max_vocab=recipe['max_vocab'])
    review_lists = label_for_lm(SplitData.split_random(TextList.from_files(imdb_path), 0.1), [tokenizer, numericalizer])
    tokenizer.close()
    print(f'{"tokens (or their cache)":36} {(time.perf_counter() - began)/60:6.1f} minutes   '
          f'{len(wiki_lists.train.x.items.flat):,} and {len(review_lists.train.x.items.flat):,} to learn from')
    labeled = SplitData.split_by_func(TextList.from_files(imdb_path, include=['train', 'test']),
                                      lambda o: o.parent.parent.name == 'test')
    rows = []
    for seed in range(args.seeds):
        lm_seed = 0 if args.one_lm else seed
        files = {name: folder/f'{name}_{lm_seed}.safetensors' for name in ('wiki', 'reviews')}
        for name, lists, pretrained in ('wiki', wiki_lists, None), ('reviews', review_lists, files['wiki']):
            how = recipe[name]
            dls = lists.to_dls(how['bs'], how['bptt'], seed=lm_seed)
            stage(f'{name}, seed {lm_seed}', lambda: train_lm(dls, recipe, how, lm_seed, files[name], pretrained))
        classify = partial(train_classifier, labeled, [tokenizer, numericalizer], recipe, seed)
        contestants = [('classifier', files['reviews']), ('from scratch', None),
                       ('from scratch, twice as long', None, 2),
                       ('from scratch, less dropout', None, 1, recipe['scratch_drop'])]
        rows.append([stage(f'{name}, seed {seed}', lambda: classify(*how))['result'][-1] for name, *how in contestants])
    rows = np.array(rows)
    print(f'\npretrained {rows[:, 0]}, from scratch {rows[:, 1]}, with twice the epochs {rows[:, 2]}, '
          f'with less dropout {rows[:, 3]}; means {rows.mean(0).round(4)}')
    try: print('TF-IDF with logistic regression, words / words and pairs:', *tfidf(labeled))
    except ImportError: print('(scikit-learn is not installed: no TF-IDF beside)')
    if is_sample(): print('These are the samples. MINIDL_DATA=<folder> takes real data.')


if __name__ == '__main__': main()
