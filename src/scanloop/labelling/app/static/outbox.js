// Answers on their way to the server: in order, one at a time, sent again until they are saved or refused.

import { post, wait } from "./api.js";

const KEPT = "scanloop-answers";

export class Outbox {
  /** `events`: changed(count, isStuck), saved(entry), refused(entry, refusal), ended() when the session is over. */
  constructor(events) {
    this.events = events;
    this.entries = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
    this.isSending = false;
    this.hasEnded = false;
  }

  get count() {
    return this.entries.length;
  }

  /** Tasks whose answers are not saved yet. */
  get tasks() {
    return this.entries.map((entry) => entry.task);
  }

  add(task, answer, token) {
    this.entries.push({ task, answer, token });
    this.#keep();
    this.send();
  }

  /** Resolves when all is saved or refused. */
  async drained() {
    while (this.count && !this.hasEnded) await wait(15);
  }

  async send() {
    if (this.isSending || this.hasEnded) return;
    this.isSending = true;
    let pause = 500;
    while (this.entries.length) {
      const entry = this.entries[0];
      this.events.changed(this.count, pause > 500);
      try {
        await post(`/api/tasks/${entry.task}/answer`, { answer: entry.answer, token: entry.token });
        this.#done();
        this.events.saved(entry);
        pause = 500;
      } catch (error) {
        if (error.code === 401 || error.kind === "csrf") {
          this.hasEnded = true;
          this.events.ended();
          break;
        }
        if (error.isPassing) {
          this.events.changed(this.count, true);
          await wait(Math.max(pause, (error.retryAfter ?? 0) * 1000));
          pause = Math.min(10_000, pause * 2);
          continue;
        }
        this.#done();
        this.events.refused(entry, error);
      }
    }
    this.isSending = false;
    this.events.changed(this.count, false);
  }

  #done() {
    this.entries.shift();
    this.#keep();
  }

  /** What is not saved outlives a reload of this tab, and goes with it. */
  #keep() {
    if (this.count) sessionStorage.setItem(KEPT, JSON.stringify(this.entries));
    else sessionStorage.removeItem(KEPT);
  }
}
