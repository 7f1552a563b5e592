/**
 * Watch: the newest overview, shared by all views of this page.
 *
 * Asks continuously (long polls) only while the page is shown and something is to be followed: the sidebar is open, or
 * a cluster or an operation is on its way. Else once a minute, for the status bar; never while the page is hidden.
 */
import { Signal } from '@lumino/signaling';

import { type Api, type IOverview, type IProblem, problemOf } from './api';
import { changing } from './words';

const CALM_MS = 60_000;
const LEAST_MS = 250;
const LONGEST_MS = 60_000;

export class Watch {
  /** There is something new to show. */
  readonly changed = new Signal<this, void>(this);
  overview: IOverview | null = null;
  /** Why the server could not be asked; `overview` is then what was last known. */
  problem: IProblem | null = null;

  private views = 0;
  private failures = 0;
  private abort = new AbortController();
  private wake: () => void = () => undefined;

  constructor(readonly api: Api) {
    document.addEventListener('visibilitychange', () => this.again());
    void this.run();
  }

  /** A view that follows everything is shown (+1) or hidden (-1). */
  follow(views: 1 | -1): void {
    this.views += views;
    this.again();
  }

  /** Ask now. */
  again(): void {
    this.abort.abort();
    this.wake();
  }

  private get live(): boolean {
    return this.views > 0 || changing(this.overview);
  }

  private async run(): Promise<never> {
    for (;;) {
      if (document.hidden) {
        await this.rest(null);
        continue;
      }
      this.abort = new AbortController();
      const started = Date.now();
      const known = this.live && !this.problem ? this.overview?.version : undefined;
      try {
        this.take(await this.api.overview(known, this.abort.signal), null);
        this.failures = 0;
        if (!this.live) {
          await this.rest(CALM_MS);
        } else if (known === undefined || Date.now() - started < LEAST_MS) {
          await this.rest(LEAST_MS);
        }
      } catch (error) {
        if (!this.abort.signal.aborted) {
          this.take(this.overview, problemOf(error));
          await this.rest(Math.min(LONGEST_MS, 1000 * 2 ** this.failures++));
        }
      }
    }
  }

  private take(overview: IOverview | null, problem: IProblem | null): void {
    const same = overview?.version === this.overview?.version && problem?.detail === this.problem?.detail;
    this.overview = overview;
    this.problem = problem;
    if (!same) {
      this.changed.emit();
    }
  }

  /** Wait so long, null: for ever, or until `again`. */
  private rest(ms: number | null): Promise<void> {
    return new Promise(resolve => {
      const timer = ms === null ? undefined : window.setTimeout(resolve, ms);
      this.wake = () => {
        window.clearTimeout(timer);
        resolve();
      };
    });
  }
}
