"""The console: shows the cluster in a browser, and lets operators change it.

- `page.Page` is one page; `pages.PAGES` lists all in the order of the menu.
- `app.App` makes the routes of each page: HTML, JSON (``/api/v1``), server-sent events (``/live``).
- `hub.Hub` loads a page at most once a second for all browsers, and sends the `fragments` that
  changed.
- `console.Console` has what pages share: settings, the services' clients.

To write a page:

1. Write ``pages/NAME.py`` with ``PAGE = Page(...)``, and ``templates/NAME.html``, which extends
   ``base.html``. Add the page to `pages.PAGES`, and its
   content to ``openapi.toml``. The template gets ``content``, the dictionary
   that ``load`` returned (write ``content["items"]`` for names of dictionary's methods), ``page``
   and ``user``.
2. Mark each element that may change with an ``id`` and the attribute ``data-live`` without value:
   ``<tr id="node-1-2" data-live>``. Put the rows into a fragment as well (``<tbody id="nodes"
   data-live>``): it is sent when a row appears or disappears. Never make a fragment depend on
   ``user``: links and buttons for operators have the class ``operate``, which CSS hides from all
   others (the server refuses the action in any case).
3. Write times as ``{{ seconds | time }}``, "in 21 s" as ``{{ seconds | until }}`` and "for 21 s"
   as ``{{ seconds | since }}``: the browser counts, and no traffic is needed. A content that says
   ``"age_s": now - then`` changes every second; say ``"since": then``.
4. No inline script and no ``style=`` attribute: the content security policy forbids both. No
   ``|safe``.
"""
