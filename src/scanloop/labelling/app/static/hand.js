// Tasks in the reader's hands: the one that is read and two ahead, their images decoded before they are shown.

import { image, post, wait } from "./api.js";
import { isAway } from "./away.js";
import { decode } from "./viewer.js";

const MOST = 3;
const SPARE_SECONDS = 90;
const AGAIN = { busy: 500, holding: 300, all_read: 10_000, budget: 15_000, no_wave: 10_000 };

export class Hand {
  /** `unsaved`: tasks whose answers are under way. `events`: changed(), nothing(why), ended(), offline(isOffline). */
  constructor(unsaved, events) {
    this.unsaved = unsaved;
    this.events = events;
    this.items = [];
    this.isFilling = false;
  }

  /** The task that is read now; undefined while none is here. */
  get current() {
    return this.items[0];
  }

  /** Put a task in front, as one whose answer was taken back. */
  putBack(task, pixels) {
    this.items.unshift(this.#item(task, pixels));
  }

  /** Let go of a task that was answered or is not ours any longer. */
  drop(task) {
    this.items = this.items.filter((item) => item.task !== task);
  }

  /** Let go of tasks whose time is almost over; those that are still ours come again, with new time. */
  refresh() {
    const before = this.items.length;
    this.items = this.items.filter((item) => item.until > performance.now());
    return this.items.length < before;
  }

  async fill() {
    if (this.isFilling) return;
    this.isFilling = true;
    while (!isAway() && (this.items.length + this.unsaved().length < MOST || !this.items.length)) {
      const pause = await this.#one();
      if (pause === null) break;
      if (pause) await wait(pause);
    }
    this.isFilling = false;
  }

  /** Ask for one more. Returns milliseconds to wait before the next try, null where there is no use in any. */
  async #one() {
    try {
      const beside = [...new Set([...this.items.map((item) => item.task), ...this.unsaved()])].slice(0, 2 * MOST);
      const { task, none } = await post("/api/tasks/next", { beside });
      this.events.offline(false);
      if (none) {
        if (this.items.length) return null;
        this.events.nothing(none);
        return AGAIN[none.why];
      }
      this.items.push(this.#item(task));
      if (this.items.length === 1) this.events.changed();
      await this.items.at(-1).loaded;
      return 0;
    } catch (error) {
      if (error.code === 401 || error.kind === "csrf") {
        this.events.ended();
        return null;
      }
      this.events.offline(true);
      return Math.max(2000, (error.retryAfter ?? 0) * 1000);
    }
  }

  #item(task, pixels = null) {
    const until = performance.now() + 1000 * Math.max(1, task.seconds_left - SPARE_SECONDS);
    const item = { ...task, until, pixels, isMissing: false };
    item.loaded = pixels ? Promise.resolve() : this.#load(item);
    return item;
  }

  async #load(item) {
    for (let pause = 300; ; pause = Math.min(5000, pause * 2)) {
      try {
        item.pixels = await decode(await image(`/images/${item.task}`));
        break;
      } catch (error) {
        if (!error.isPassing) {
          item.isMissing = true;
          break;
        }
        await wait(pause);
      }
    }
    if (item === this.current) this.events.changed();
  }
}
