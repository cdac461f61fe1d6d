from collections import OrderedDict

# Found by 36 trials on the first 100,000 clicks of RSC15, the last tenth of the training sessions as validation log:
# gru4rec tune train_tr.tsv train_valid.tsv -opf paramspaces/gru4rec_bprmax_standard_parspace.json -pm mrr -nt 36
#   -fp n_sample=2048,loss=bpr-max,constrained_embedding=True,logq=0,n_epochs=10 -d cpu --threads 1
#   --start paramfiles/retailrocket_bprmax_shared_best.py
gru4rec_params = OrderedDict(
    [
        ("loss", "bpr-max"),
        ("constrained_embedding", True),
        ("embedding", 0),
        ("elu_param", 1.0),
        ("layers", [128]),
        ("n_epochs", 10),
        ("batch_size", 32),
        ("dropout_p_embed", 0.3),
        ("dropout_p_hidden", 0.35),
        ("learning_rate", 0.02),
        ("momentum", 0.7),
        ("n_sample", 2048),
        ("sample_alpha", 0.2),
        ("bpreg", 0.55),
        ("logq", 0.0),
    ]
)
