"""The page of `tracelet ui`: a local web server that shows the runs of a directory, and changes none.

Every answer is made on a thread of Starlette's pool, from the files alone, so that runs that are running, ended, killed
or damaged are all shown as they stand. `server` puts it together, `guard` lets in who holds the token, `api` answers,
`catalog` knows the runs, `follow` keeps the points of those that are looked at, and `static/` is the page.

The interface between the page and the server. All answers are JSON but the last; a number that JSON does not have is
the text `NaN`, `Infinity` or `-Infinity`. `run` is a run id, or its uuid where several projects have the same id.

| GET | query | gives |
|---|---|---|
| `/api/runs` | `filter`*, `search`, `sort`, `offset`, `limit` | rows of the table, `total`, `keys`, `unreadable` |
| `/api/run` | `run` | everything but points, console and files |
| `/api/names` | `run`* | the series of these runs, and how many points |
| `/api/series` | `run`*, `name`*, `x`, `from`, `to`, `points`, `smooth`, `all` | curves: see `curves.Drawing` |
| `/api/band` | `run`*, `name`, `x`, `from`, `to`, `points`, `ranks` | mean, extremes over runs (and ranks) |
| `/api/pulse` | `run`* | status and a version: changed, so ask again |
| `/api/compare` | `run`* | parameters and metrics side by side |
| `/api/console` | `run`, `name`, `before` | the last lines printed, or those before a line |
| `/api/records` | `run`, `type`, `name`, `offset`, `all` | media, tables, texts, histograms of one name |
| `/api/csv` | as `/api/series` | the points as a CSV file, at full resolution |
| `/file` | `run`, `path`, `show` | a file of the run, as an attachment |

`*`: may be repeated. `all=1` gives superseded steps, too. `show` lets a browser draw raster images, sound and films,
and shows texts as plain text.
"""
