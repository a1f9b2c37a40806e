"""HDF5: the layouts of robomimic and ALOHA, or others whose fields are named. It needs the extra `hdf5`."""
