// An answer that is being written: to be awaited, or taken piece by piece.

import type { Answer, Piece } from "./protocol.ts";

/**
 * `await` gives the whole answer; `for await` its pieces as they come, and leaving that loop ends the answer. What was
 * written before a loop began is not lost to it. A loop that goes on after an error of the answer throws it.
 */
export class Generation implements PromiseLike<Answer>, AsyncIterable<Piece> {
  /** The whole, when it is there. */
  readonly answer: Promise<Answer>;
  readonly #pieces: Piece[] = [];
  readonly #cancel: () => void;
  #done = false;
  /** Loops that wait for the next piece. */
  #waiting: (() => void)[] = [];

  /** `start` is given what hears pieces, and what to call with the answer or an error; `cancel` ends it early. */
  constructor(start: (piece: (piece: Piece) => void) => Promise<Answer>, cancel: () => void) {
    this.#cancel = cancel;
    this.answer = start((piece) => {
      this.#pieces.push(piece);
      this.#wake();
    });
    const done = () => {
      this.#done = true;
      this.#wake();
    };
    // Whoever awaits or loops is told of an error; somebody who does neither does not want to know.
    this.answer.then(done, done);
  }

  /** Ends it: the answer is what there is. */
  cancel(): void {
    if (!this.#done) this.#cancel();
  }

  then<A = Answer, B = never>(
    fulfilled?: ((answer: Answer) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.answer.then(fulfilled, rejected);
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** The pieces, from the first one on. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Piece, void, undefined> {
    let next = 0;
    try {
      for (;;) {
        while (next < this.#pieces.length) yield this.#pieces[next++]!;
        if (this.#done) break;
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
      }
    } finally {
      this.cancel();
    }
    await this.answer;
  }
}
