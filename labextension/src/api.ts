/**
 * The REST API of the server extension: its JSON, and requests.
 *
 * What the fields mean is said where they are made, in `ppe_jupyter/overview/`. Knows nothing of views.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

export interface IProblem {
  title: string;
  /** HTTP's; 0: there was no answer. */
  status: number;
  detail: string;
}

export interface INode {
  index: number;
  role: string;
  state: string;
  up: boolean;
  slots: number;
  type: string;
  zone: string;
  spot: boolean;
  private_ip: string;
  private_dns: string;
  public_ip: string;
  public_dns: string;
  instance_id: string;
  launched: string;
  reason: string;
}

export interface IOperation {
  id: string;
  verb: string;
  cluster: string;
  state: 'running' | 'done' | 'failed' | 'cancelled';
  started: string;
  phase: string;
  ready: number;
  total: number;
  unit: string;
  message: string;
  elapsed: number;
  problem: IProblem | null;
}

export interface ICluster {
  name: string;
  state: string;
  nodes_up: number;
  nodes_wanted: number;
  slots: number;
  type: string;
  zone: string;
  launched: string;
  owner: string;
  mine: boolean;
  spot: boolean;
  usd_per_hour: number | null;
  usd_so_far: number | null;
  idle_hours: number | null;
  max_hours: number | null;
  budget_usd: number | null;
  then: string | null;
  deadline: string | null;
  troubles: string[];
  advice: string;
  actions: string[];
  operation: string | null;
  nodes: INode[];
  connect: string;
  ssh: string | null;
}

export interface IOverview {
  version: string;
  whose: string;
  free: boolean;
  up: boolean;
  at: string;
  preparing: string;
  problem: IProblem | null;
  usd_per_hour: number | null;
  usd_so_far: number | null;
  max_usd_per_hour: number | null;
  clusters: ICluster[];
  operations: IOperation[];
}

/** What the master of a cluster says. */
export interface IDetails {
  watchdog: { acts_at: string | null; action: string | null; lines: string[] };
  session: {
    state: string;
    since: string | null;
    holder: string;
    code: string;
    memory_mb: number | null;
    unsaved: boolean | null;
  } | null;
  jobs: { id: number; session: string; state: string; title: string; since: string; percent: number | null }[];
  loads: { index: number; cpu: number; memory_used_gb: number; memory_gb: number }[];
  slots_busy: number;
  volumes: { id: string; gb: number; state: string; node: number | null; mounted: string | null }[];
  events: { at: string; level: string; text: string }[];
  problem: IProblem | null;
}

export interface IPlan {
  plan: string;
  verb: string;
  cluster: string;
  ok: boolean;
  rows: [string, string][];
  problems: { grade: 'error' | 'warning' | 'info'; text: string }[];
  usd_per_hour: number | null;
  losses: [string, string][];
  destroys: boolean;
  costs: boolean;
  magic: string;
}

export interface IInstanceType {
  name: string;
  cores: number;
  gb: number;
  gbps: number | null;
  cluster_capable: boolean;
  arch: string;
  usd_per_hour: number | null;
  spot_usd_per_hour: number | null;
}

export interface IImage {
  id: string;
  name: string;
  software: Record<string, string>;
  fits: boolean;
  why: string;
}

export interface IChoices {
  zones: string[];
  key_pairs: string[];
  security_groups: { id: string; name: string }[];
  defaults: ISpec;
}

/** Fields of ClusterSpec; what is absent is chosen by the planner. */
export type ISpec = Record<string, string | number | boolean | null>;

/** A request that was refused, or not answered. */
export class ApiError extends Error {
  constructor(readonly problem: IProblem) {
    super(problem.detail);
  }
}

const MISSING: IProblem = {
  title: 'The Jupyter server has no ppe-jupyter extension',
  status: 404,
  detail:
    'It was installed after the server was started, or is disabled. Restart the server; then ' +
    '`jupyter server extension list` shows ppe_jupyter as enabled.'
};

const RETRIES = 2;
const RETRY_MS = 500;

/** Any failure as what the views show. */
export function problemOf(error: unknown): IProblem {
  if (error instanceof ApiError) {
    return error.problem;
  }
  if (error instanceof ServerConnection.NetworkError || error instanceof TypeError) {
    const detail = 'This page asks again by itself. Is the server, or the way to it, gone?';
    return { title: 'The Jupyter server does not answer', status: 0, detail };
  }
  return { title: 'Something failed in this page', status: 0, detail: String(error) };
}

export class Api {
  constructor(private readonly settings: ServerConnection.ISettings) {}

  /** All clusters; with `known`, an earlier one's version, once it differs or after a while. */
  overview(known?: string, signal?: AbortSignal): Promise<IOverview> {
    return this.request('GET', 'overview', known === undefined ? {} : { wait: known }, undefined, signal);
  }

  async details(cluster: string, signal?: AbortSignal): Promise<IDetails> {
    const path = `clusters/${encodeURIComponent(cluster)}`;
    return (await this.request<{ details: IDetails }>('GET', path, {}, undefined, signal)).details;
  }

  planLaunch(spec: ISpec, signal?: AbortSignal): Promise<IPlan> {
    return this.request('POST', 'plan', {}, { verb: 'launch', spec }, signal);
  }

  planChange(verb: string, cluster: string, options: ISpec = {}): Promise<IPlan> {
    return this.request('POST', 'plan', {}, { verb, cluster, ...options });
  }

  start(plan: IPlan): Promise<IOperation> {
    return this.request('POST', 'operations', {}, { plan: plan.plan });
  }

  /** Have a launch undo itself. */
  stop(operation: string): Promise<IOperation> {
    return this.request('DELETE', `operations/${encodeURIComponent(operation)}`);
  }

  /** Interrupt or restart R on the master; `agreed`: though the cluster is somebody else's. */
  session(action: 'interrupt' | 'restart', cluster: string, agreed: boolean): Promise<unknown> {
    return this.request('POST', `clusters/${encodeURIComponent(cluster)}/${action}`, {}, { agreed });
  }

  async types(): Promise<IInstanceType[]> {
    return (await this.request<{ types: IInstanceType[] }>('GET', 'types')).types;
  }

  images(type: string): Promise<IImage[]> {
    return this.request('GET', 'images', type ? { type } : {});
  }

  choices(): Promise<IChoices> {
    return this.request('GET', 'choices');
  }

  /** A local cloud that starts adds a network, at which browsers drop what is under way. */
  private async answer(url: string, init: RequestInit, retries: number): Promise<Response> {
    try {
      return await ServerConnection.makeRequest(url, init, this.settings);
    } catch (error) {
      if (init.signal?.aborted || !retries) {
        throw error;
      }
      await new Promise(resolve => setTimeout(resolve, RETRY_MS));
      return this.answer(url, init, retries - 1);
    }
  }

  private async request<T>(
    method: string,
    path: string,
    query: Record<string, string> = {},
    body?: object,
    signal?: AbortSignal
  ): Promise<T> {
    const url =
      URLExt.join(this.settings.baseUrl, 'ppe-jupyter/api', path) + URLExt.objectToQueryString(query);
    // Not JupyterLab's no-store, which adds the time to the query.
    const init: RequestInit = { method, signal, cache: 'no-cache', body: body && JSON.stringify(body) };
    const response = await this.answer(url, init, method === 'GET' || path === 'plan' ? RETRIES : 0);
    const json = (response.headers.get('Content-Type') ?? '').includes('json');
    if (response.ok && json) {
      return response.json();
    }
    const said = json ? await response.json() : null;
    if (said?.detail) {
      throw new ApiError(said);
    }
    throw new ApiError(
      response.status === 404
        ? MISSING
        : {
            title: `The Jupyter server answered ${response.status}`,
            status: response.status,
            detail: response.statusText
          }
    );
  }
}
