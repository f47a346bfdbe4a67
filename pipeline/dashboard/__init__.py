"""One self-contained web page on a lake: `facts` asks, `series`, `rows` and `tables` arrange, `page` writes.

The page's own style and script are `page.css` and `page.js`; the charts' library comes from an installed package.
"""
