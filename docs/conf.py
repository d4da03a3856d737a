"How Sphinx makes the website; its sources come from tools/build_docs.py."
import os
from configparser import ConfigParser
from pathlib import Path

_parser = ConfigParser(delimiters=['='], inline_comment_prefixes=None)
_parser.read(Path(__file__).parent.parent/'settings.ini', encoding='utf-8')
_cfg = _parser['DEFAULT']

project = _cfg['title']
author = _cfg['author']
copyright = _cfg['copyright']
release = version = _cfg['version']
language = 'en'

extensions = ['myst_nb', 'sphinx.ext.mathjax', 'sphinx_copybutton']
nb_execution_mode = 'off'
nb_merge_streams = True
myst_enable_extensions = ['attrs_block', 'attrs_inline', 'colon_fence', 'dollarmath']
myst_heading_anchors = 3
myst_dmath_double_inline = True
smartquotes = False   # 'lr' in a comment is Python

# Formulas: one file that needs neither fonts nor network, without the menu that would load more.
mathjax_path = 'mathjax/tex-svg.js'
mathjax3_config = {'options': {'enableMenu': False}, 'svg': {'fontCache': 'global', 'scale': 0.93}}

add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = 'hide'

html_theme = 'furo'
html_title = f'{project} {version}'
html_static_path = ['static', os.environ['MINIDL_DOCS_STATIC']]
html_css_files = ['custom.css']
html_favicon = 'static/icon.svg'
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_theme_options = {'navigation_with_keys': True}
