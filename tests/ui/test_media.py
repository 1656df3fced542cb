from __future__ import annotations

from tests.ui.demo import experiment


def test_media_of_superseded_steps_are_shown_on_request(started, growing):
    with experiment(growing, "rewound", run_id="rewound", project="live") as run:
        run.log_text("of both", "superseded text", 2)
        run.log_text("of one", "nothing came again", 2)
        run.rewind(1)
        run.log_text("of both", "text that holds", 2)
    started.open("/run?run=rewound&tab=media")
    assert ["text that holds"] == [text.text for text in started.all("pre.console")]
    started.all(".bar input")[0].click()
    started.wait(lambda: 3 == len(started.all("pre.console")))
    assert "all=1" in started.driver.current_url
