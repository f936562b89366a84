"""The report of a version or of a search: what is on record, as a page, as JSON, in a notebook.

contents    reads the documents
findings    what is wrong and what is fine, from an evaluation alone
figures     pictures of evaluations and searches
flow        gradients of the winner's layers
tables      their numbers
page        one HTML file
"""

from eagleray.reports.contents import Contents as Contents
from eagleray.reports.contents import of as of
from eagleray.reports.page import page as page
