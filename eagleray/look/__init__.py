"""How pages and reports look: one stylesheet, one base, parts of forms and pictures.

Pages are templates of Jinja, which escapes every value. A page stands alone: style and script are
in it, and its Content-Security-Policy names their hashes, so that nothing else is applied or run.

    base.html     what each page is: head, style, script
    parts.html    macros: the fields of a form
    figure.html   macros: a picture with its sentence and its numbers, a table
    pictures.py   pictures as inline SVG: lines, marks and intervals over two axes
    style.css     colours, type and space, in light, in dark and in print
    parts.js      elements, numbers and bars, for pages whose values come later
"""

from eagleray.look.pages import Page as Page
from eagleray.look.pages import Template as Template
