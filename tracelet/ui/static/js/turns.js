// Heavy work, such as drawing a chart, a little in each frame: the page answers in between, however many charts there are.

const SHARE_MS = 8; // Of the 16 that a frame has. One chart may take longer, and has a frame to itself then.
const waiting = new Map();
let isAsked = false;

/** Do it in one of the next frames, instead of what waits under the same key. */
export function inTurn(key, work) {
  waiting.delete(key); // So that it is the last in the row.
  waiting.set(key, work);
  ask();
}

function ask() {
  if (!isAsked) requestAnimationFrame(share);
  isAsked = true;
}

function share() {
  isAsked = false;
  const end_ms = performance.now() + SHARE_MS;
  for (const [key, work] of waiting) {
    waiting.delete(key);
    try {
      work();
    } finally {
      if (waiting.size) ask(); // Also after a piece of work that failed.
    }
    if (performance.now() > end_ms) return;
  }
}
