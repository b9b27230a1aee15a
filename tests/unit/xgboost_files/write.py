"""Write a model's files and answers with the XGBoost of this Python, for `test_train_files.py`.

    python3.11 -m venv old
    old/bin/pip install "numpy<2" pandas scipy "scikit-learn<1.6" xgboost==1.7.6      # 2.1.4 and 3.0.5 as well
    old/bin/python tests/unit/xgboost_files/write.py

`records.json` holds the records of all versions.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost

HERE = Path(__file__).parent
ROWS = 120
SHOWN = 40


def records() -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(ROWS, 2)).round(3), columns=["a", "b"])
    return frame.mask(random.random(frame.shape) < 0.1).assign(c=random.choice(["x", "y", "z"], ROWS))


def main() -> None:
    """Write one estimator, which stopped early, and a Booster with categories."""
    given = records()
    (HERE / "records.json").write_text(json.dumps(given.replace({np.nan: None}).to_dict("list")))
    wanted = ((given.a > 0) ^ (given.c == "x")).astype(int)
    coded = given.assign(c=given.c.map({"x": 2.0, "y": 0.0, "z": 1.0}))
    model = xgboost.XGBClassifier(n_estimators=12, max_depth=2, early_stopping_rounds=2, eval_metric="logloss")
    model.fit(coded[:80], wanted[:80], eval_set=[(coded[80:], 1 - wanted[80:])], verbose=False)
    categories = given.assign(c=given.c.astype("category"))
    matrix = xgboost.DMatrix(categories, wanted, enable_categorical=True)
    options = {"objective": "binary:logistic", "max_depth": 2, "tree_method": "hist"}
    booster = xgboost.train(options, matrix, 6)
    booster_answers = booster.predict(matrix)
    version = xgboost.__version__
    for ending in ("json", "ubj"):
        model.save_model(HERE / f"{version}-classifier.{ending}")
        booster.save_model(HERE / f"{version}-booster.{ending}")
    if version.startswith("1."):
        booster = xgboost.train(options, xgboost.DMatrix(coded, wanted), 2)
        booster.save_model(HERE / f"{version}-binary.model")
    answers = {"classifier": model.predict_proba(coded)[:, 1], "booster": booster_answers}
    text = json.dumps({name: values.round(7).tolist()[:SHOWN] for name, values in answers.items()})
    (HERE / f"{version}-answers.json").write_text(text)


if __name__ == "__main__":
    main()
