import clusters from './clusters';
import highlight from './highlight';

export default [highlight, clusters];
