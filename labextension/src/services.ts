/** What the sidebar's views act with. */
import type { ICluster } from './api';
import type { Changes } from './changes';
import type { Watch } from './watch';

export interface IViewServices {
  watch: Watch;
  changes: Changes;
  /** Do one of a cluster's actions. */
  act(verb: string, cluster: ICluster): Promise<unknown>;
  /** Whether the clusters are shown now. */
  shown: boolean;
}
