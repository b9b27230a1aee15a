"""Contributions (SHAP): what each feature adds to the answer of a scikit-learn or XGBoost model."""
