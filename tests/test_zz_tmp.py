import time, jaxtyping
def test_x(world, small, tmp_path):
    import miko_clf
    from miko_clf.export.onnx_export import export_bundle
    t=time.time(); b=miko_clf.fit(small, str(world/'sarcasm'), tmp_path/'b'); print('fit',time.time()-t); t=time.time()
    jaxtyping.config.update("jaxtyping_disable", True)
    export_bundle(b); print('export',time.time()-t); t=time.time()
    jaxtyping.config.update("jaxtyping_disable", False)
    s=miko_clf.load(b); print(s.score([{'text':'hi'}]), time.time()-t)
