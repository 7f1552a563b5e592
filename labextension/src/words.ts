/** Words: states, money and times as people read them. Pure; knows neither views nor the server. */
import type { ICluster, IOperation, IOverview } from './api';

/** How a state looks; its word is always beside the shape, so neither colour nor shape is all there is. */
export type Look = 'good' | 'moving' | 'bad' | 'parked' | 'over';

const LOOKS: Readonly<Record<string, Look>> = {
  running: 'good',
  pending: 'moving',
  configuring: 'moving',
  rebooting: 'moving',
  parking: 'moving',
  'shutting-down': 'moving',
  stopping: 'moving',
  degraded: 'bad',
  parked: 'parked',
  stopped: 'parked',
  terminated: 'over'
};

const DOING: Readonly<Record<string, string>> = {
  launch: 'launching',
  terminate: 'terminating',
  park: 'parking',
  start: 'starting',
  reboot: 'rebooting',
  resize: 'resizing',
  retry: 'mending',
  limit: 'setting limits',
  attach_volume: 'attaching a volume',
  detach_volume: 'detaching a volume',
  cleanup: 'cleaning up',
  prepare: 'preparing the image of nodes'
};

export function look(state: string): Look {
  return LOOKS[state] ?? 'over';
}

export function doing(operation: IOperation): string {
  return DOING[operation.verb] ?? operation.verb;
}

/** Whether something is on its way from one state to another. */
export function changing(overview: IOverview | null): boolean {
  return (
    !!overview &&
    (overview.clusters.some(each => look(each.state) === 'moving') ||
      overview.operations.some(each => each.state === 'running'))
  );
}

/** Those that have a master to talk to. */
export function running(overview: IOverview | null): ICluster[] {
  return overview?.clusters.filter(each => each.state === 'running' || each.state === 'degraded') ?? [];
}

/** An amount, at least two digits of it. */
export function dollars(usd: number): string {
  return usd && Math.abs(usd) < 0.1 ? `$${Number(usd.toPrecision(2))}` : `$${usd.toFixed(2)}`;
}

export function perHour(usd: number | null): string {
  return usd === null ? 'price unknown' : `${dollars(usd)}/h`;
}

export function soFar(usd: number | null): string {
  return usd === null ? 'cost so far unknown' : `${dollars(usd)} so far`;
}

/** A span such as `3 h 10 min`. */
export function span(ms: number): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  const [days, hours] = [Math.floor(minutes / 1440), Math.floor(minutes / 60) % 24];
  const parts = [days && `${days} d`, hours && `${hours} h`, !days && minutes % 60 && `${minutes % 60} min`];
  return parts.filter(Boolean).join(' ') || '0 min';
}

export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** A moment in local time; with the day if that is not today. */
export function clock(iso: string): string {
  const at = new Date(iso);
  const day = at.toDateString() === new Date().toDateString() ? {} : { month: 'short', day: 'numeric' };
  return at.toLocaleString([], { hour: '2-digit', minute: '2-digit', ...day } as Intl.DateTimeFormatOptions);
}

/** The first line of a text, cut where it is long. */
export function firstLine(text: string, most = 120): string {
  const line = text.split('\n', 1)[0] ?? '';
  return line.length > most ? `${line.slice(0, most - 1)}…` : line;
}
