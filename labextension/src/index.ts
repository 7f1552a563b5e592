import clusters from './clusters';
import highlight from './highlight';
import rstudio from './rstudio';

export default [highlight, clusters, rstudio];
