// Whether somebody sits here: a page that nobody touches asks the server for nothing, so that its session can end.

const AFTER = 5 * 60_000;
let touched = performance.now();
const backAgain = [];

/** Whether nobody has touched the page for some minutes. */
export const isAway = () => performance.now() - touched > AFTER;

/** Call a function when somebody comes back. */
export const onReturn = (work) => backAgain.push(work);

for (const kind of ["keydown", "pointerdown", "pointermove", "wheel"]) {
  addEventListener(
    kind,
    () => {
      const wasAway = isAway();
      touched = performance.now();
      if (wasAway) for (const work of backAgain) work();
    },
    { passive: true, capture: true },
  );
}
