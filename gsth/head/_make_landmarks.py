"""Where the 478 MediaPipe landmarks lie on the built-in head: rendered, detected, cast back. Development only."""

from __future__ import annotations

import numpy as np

from gsth.head import _raster


def embedding(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``landmark_faces`` [478] and ``landmark_bary`` [478 3] for the arrays of the npz."""
    import mediapipe as mp
    verts=arrays["template"].astype(float); faces=arrays["faces"].astype(int)
    hidden=np.concatenate([arrays["part_"+p] for p in ("hair_cap","drape","lashes","bust")])
    shown=np.setdiff1d(np.arange(len(faces)),hidden); colours=np.full((len(faces),3),.75)
    size=768; K=np.array([[1500.,0,384],[0,1500,384],[0,0,1]])
    votes=[]
    with mp.solutions.face_mesh.FaceMesh(static_image_mode=True,refine_landmarks=True,max_num_faces=1) as net:
        for yaw in (0,-12,12,-22,22):
            a=np.radians(yaw); R=np.array([[np.cos(a),0,np.sin(a)],[0,1,0],[-np.sin(a),0,np.cos(a)]])
            c=np.array([0,-.12,-.06])
            cam=(verts-c)@R.T+[0,0,.75]
            hits=_raster.rasterize(cam,faces[shown],K,(size,size))
            found=net.process(_raster.shade(cam,faces[shown],hits,colours[shown])).multi_face_landmarks
            if not found: continue
            px=np.array([[l.x,l.y] for l in found[0].landmark])*size
            ij=px.astype(int).clip(0,size-1); f=hits.face_ids[ij[:,1],ij[:,0]]; b=hits.bary[ij[:,1],ij[:,0]]
            p=(verts[faces[shown][f]]*b[...,None]).sum(1); p[f<0]=np.nan; votes.append(p)
    print("views", len(votes))
    points=np.nanmedian(np.stack(votes),0)
    corner=verts[faces]; centre=corner.mean(1); 
    skin=np.concatenate([arrays["part_"+p] for p in ("face","ears","scalp","lids","nose","lips","neck")]); skin=np.unique(skin)
    eyes=[arrays["part_eye_r"],arrays["part_eye_l"]]
    out_f=np.zeros(478,int); out_b=np.zeros((478,3))
    for i,p in enumerate(points):
        pool=skin if i<468 else (eyes[0] if i<473 else eyes[1])
        import trimesh
        d=np.linalg.norm(centre[pool]-p,axis=1); near=pool[np.argsort(d)[:20]]
        q=trimesh.triangles.closest_point(corner[near],np.tile(p,(len(near),1))); k=np.argmin(((q-p)**2).sum(1))
        out_f[i]=near[k]; out_b[i]=trimesh.triangles.points_to_barycentric(corner[near[k]][None],q[k][None])[0]
    return {"landmark_faces":out_f.astype(np.uint16),"landmark_bary":out_b.astype(np.float32)}
